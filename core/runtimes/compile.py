"""torch.compile: PyTorch's own compiler, which on a CPU needs a C++ compiler."""

import shutil
from typing import Any

import torch
from torch import nn

from core.models.batches import place
from core.runtimes.base import Batch, Refused, kernel_of
from core.runtimes.decode import Decoder
from core.tasks.base import inputs

COMPILERS = ("c++", "g++", "clang++")


class CompiledRunner:
    """A compiled forward pass; decoding is not timed, since every new length would be compiled anew."""

    name = "compile"

    def __init__(self, forward: Any, device: torch.device, dtype: torch.dtype, kernel: str):
        self.forward = forward
        self.device = device
        self.dtype = dtype
        self.kernel = kernel

    def __call__(self, batch: Batch) -> object:
        """One forward pass."""
        return self.forward(**inputs(batch))

    def decoder(self) -> Decoder | None:
        """None: see the class."""
        return None


def compiled(model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> CompiledRunner:
    """The model compiled for the example's shapes; raises Refused without a compiler or a kernel, or where it fails."""
    if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise Refused(f"torch.compile needs a C++ compiler on a CPU, and none of {', '.join(COMPILERS)} is installed")
    kernel = kernel_of(model, device, dtype)
    if kernel is None:
        raise Refused("size only, no kernel here")
    model = model.to(device).eval()
    runner = CompiledRunner(torch.compile(model, dynamic=False), device, dtype, kernel)
    try:
        with torch.inference_mode():
            runner(place(example, device, dtype))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise Refused(f"torch.compile cannot compile it: {str(error).splitlines()[0]}") from error
    return runner
