"""The base class of runtimes: typed settings, requirements on a worker, and execution of a model while it is timed."""

from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from core.nn.replacement import executed
from core.runtimes.decode import Decoder
from core.spec.labels import changed_settings

Batch = dict[str, Tensor]
DEVICES = frozenset({"cpu", "gpu", "cuda"})  # what a worker provides by its device, whatever is installed


class Refused(Exception):
    """A runtime cannot execute this model; the message gives the reason for the page."""


class Runner(Protocol):
    """A loaded model in one runtime."""

    kernel: str  # which kernel executes the weights
    device: torch.device
    dtype: torch.dtype  # of its floating-point inputs

    def __call__(self, batch: Batch) -> object:
        """One forward pass on keyword arguments on `device`; a GPU may not have finished on return."""
        ...

    def decoder(self) -> Decoder | None:
        """The model as a generator of tokens; None if this runtime does not time decoding."""
        ...


class Runtime(BaseModel):
    """Executes a model while it is timed. Its fields are its settings; its name is its key in the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requires: ClassVar[frozenset[str]] = frozenset()  # what a worker must provide: "cpu", "cuda", a package's name, ...

    @classmethod
    def provided(cls, device: str) -> frozenset[str]:
        """Those of `requires` that this installation provides on `device` (cpu or gpu).

        By default the names of installed packages. The worker's device and CPU features need not be included.
        """
        return frozenset(name for name in cls.requires - DEVICES if installed_version(name))

    @classmethod
    def software(cls, device: str) -> str:
        """Names and versions of the software besides PyTorch; latencies with other versions are measured again.

        By default the installed packages that it requires: "onnx 1.17.0, onnxruntime 1.20.1".
        """
        found = {name: installed_version(name) for name in sorted(cls.requires - DEVICES)}
        return ", ".join(f"{name} {number}" for name, number in found.items() if number)

    def label(self) -> str:
        """A short label for charts: the settings that differ from their defaults."""
        return changed_settings(self)

    def load(self, model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> Runner:
        """The model ready to execute inputs like `example` on `device`; raises Refused for a model it cannot execute.

        `dtype` is that of the model's floating-point inputs.
        """
        raise NotImplementedError(type(self).__name__)


def installed_version(package: str) -> str | None:
    """The version of a Python package by its distribution or import name; None if it is not installed.

    So `onnxruntime` also finds `onnxruntime-gpu`.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        importable = package.isidentifier() and find_spec(package) is not None
        distributions = packages_distributions().get(package, []) if importable else []
        return version(distributions[0]) if distributions else None


def kernel_of(model: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """The kernels that execute the model's replacement modules, "dense" if there are no special ones.

    None: a packed module has no kernel here and would be unpacked at every call, so its latency would
    say nothing about the format; such a stage is *size only (no kernel on this worker)*.
    """
    kernels: set[str] = set()
    for module in executed(model):
        kernel = module.kernel(device, dtype)
        if kernel is None:
            return None
        kernels.add(kernel)
    return " + ".join(sorted(kernels - {"dense"})) or "dense"
