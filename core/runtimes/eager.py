"""Plain PyTorch."""

import torch
from torch import nn

from core.runtimes.base import Batch, Refused, Runtime, kernel_of
from core.runtimes.decode import Decoder, decoder_of
from core.tasks.base import inputs


class EagerRunner:
    """Calls the model directly."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype, kernel: str):
        self.model = model
        self.device = device
        self.dtype = dtype
        self.kernel = kernel

    def __call__(self, batch: Batch) -> object:
        """One forward pass."""
        return self.model(**inputs(batch))

    def decoder(self) -> Decoder | None:
        """The model as a generator of tokens, None for one that does not generate."""
        return decoder_of(self.model)


def eager(model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> EagerRunner:
    """The model on `device`, in evaluation mode; raises Refused if packed weights have no kernel on this worker."""
    kernel = kernel_of(model, device, dtype)
    if kernel is None:
        raise Refused("size only (no kernel on this worker)")
    return EagerRunner(model.to(device).eval(), device, dtype, kernel)


class Eager(Runtime):
    """Plain PyTorch without compilation."""

    def load(self, model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> EagerRunner:
        return eager(model, device, dtype, example)
