"""Keeping sums over a whole text out of 16 bits, whatever the model's type and the training's autocast are."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In float32, or float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, what is wide stays so."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
