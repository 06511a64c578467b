"""How a subject is executed while it is timed: the runtimes by the names that a spec gives them."""

from collections.abc import Callable

import torch
from torch import nn

from core.runtimes.base import Batch, Runner
from core.runtimes.compile import compiled
from core.runtimes.eager import eager
from core.runtimes.onnxruntime import exported

RUNTIMES: dict[str, Callable[[nn.Module, torch.device, torch.dtype, Batch], Runner]] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": exported,
}
