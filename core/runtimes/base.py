"""How a subject is executed while it is timed."""

from typing import Protocol

import torch
from torch import Tensor, nn

from core.nn.replacement import Replacement
from core.runtimes.decode import Decoder

Batch = dict[str, Tensor]


class Refused(Exception):
    """A runtime cannot execute this model here; the message says why, for the page."""


class Runner(Protocol):
    """A loaded model in one runtime."""

    name: str  # eager, compile, onnxruntime
    kernel: str  # which kernel executes the weights
    device: torch.device
    dtype: torch.dtype  # of its floating-point inputs

    def __call__(self, batch: Batch) -> object:
        """One forward pass on keyword arguments that lie on `device`; a GPU may still be busy with it."""
        ...

    def decoder(self) -> Decoder | None:
        """The model as a generator of tokens; None where this runtime does not time decoding."""
        ...


def kernel_of(model: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Which kernels execute the model's swapped-in modules, "dense" where none is special.

    None: something packed has no kernel here and would be unpacked at every call, so that a time would
    say nothing about the format; such a stage is *size only, no kernel here*.
    """
    kernels: set[str] = set()
    for module in model.modules():
        if isinstance(module, Replacement):
            kernel = module.kernel(device, dtype)
            if kernel is None:
                return None
            kernels.add(kernel)
    return " + ".join(sorted(kernels - {"dense"})) or "dense"
