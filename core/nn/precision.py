"""A model's dtype, and keeping sums out of 16 bits, whatever the model's dtype and the training's autocast are."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

HALF_DTYPES = (torch.bfloat16, torch.float16)


def float_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model and of its inputs: its first floating-point parameter's, float32 if it has none."""
    floating = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    return next(floating, torch.float32)


def wide(x: Tensor) -> Tensor:
    """In float32, or float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, what is wide stays so."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def is_precise(scales: Tensor, dtype: torch.dtype) -> bool:
    """Whether `dtype` holds all scales at its full precision: none is too large, none among its subnormals."""
    limits = torch.finfo(dtype)
    return bool(((scales >= limits.tiny) & (scales <= limits.max)).all())
