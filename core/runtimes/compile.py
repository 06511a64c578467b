"""torch.compile, PyTorch's compiler, which needs a C++ compiler on CPUs."""

import shutil
import subprocess
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from core.models.batches import place
from core.runtimes.base import Batch, Refused, Runtime, installed_version, kernel_of
from core.runtimes.decode import Decoder
from core.tasks.base import inputs

COMPILERS = ("c++", "g++", "clang++")
COMPILER = "C++ compiler"  # as a worker provides it
Mode = Literal["default", "reduce-overhead", "max-autotune"]


class CompiledRunner:
    """A compiled forward pass; decoding is not timed, since every new length would be compiled again."""

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


class Compile(Runtime):
    """torch.compile, PyTorch's compiler."""

    requires = frozenset({COMPILER})

    mode: Mode = Field(
        "default",
        description="optimization mode: reduce-overhead captures CUDA graphs, max-autotune tries kernels",
    )

    @classmethod
    def provided(cls, device: str) -> frozenset[str]:
        """A C++ compiler is installed; on a GPU, Triton too."""
        complete = _compiler_version() and (device == "cpu" or installed_version("triton"))
        return cls.requires if complete else frozenset()

    @classmethod
    def software(cls, device: str) -> str:
        """The compiler's version; on a GPU, Triton's too."""
        triton = installed_version("triton") if device == "gpu" else None
        return ", ".join(filter(None, [_compiler_version(), triton and f"triton {triton}"]))

    def load(self, model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> CompiledRunner:
        return compiled(model, device, dtype, example, self.mode)


@cache
def _compiler_version() -> str | None:
    """The first line of the installed C++ compiler's version output, None without a compiler."""
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        return None
    told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return told.partition("\n")[0].strip() or path


def compiled(
    model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch, mode: Mode = "default"
) -> CompiledRunner:
    """The model compiled for the example's shapes; raises Refused without compiler or kernel, or if it fails."""
    if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise Refused(f"torch.compile needs a C++ compiler on CPUs, and none of {', '.join(COMPILERS)} is installed")
    kernel = kernel_of(model, device, dtype)
    if kernel is None:
        raise Refused("size only (no kernel on this worker)")
    model = model.to(device).eval()
    runner = CompiledRunner(torch.compile(model, dynamic=False, mode=mode), device, dtype, kernel)
    try:
        with torch.inference_mode():
            runner(place(example, device, dtype))
    except torch._dynamo.exc.TorchDynamoException as error:
        raise Refused(f"torch.compile cannot compile it: {str(error).splitlines()[0]}") from error
    return runner
