"""Norms that see only some channels of the residual stream, as those of a narrower network would.

CoFi (https://arxiv.org/abs/2204.00408) masks the stream while it is trained: statistics over all channels, zeros
included, would be others than those of the model that is left in the end.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle


def norm_over(norm: nn.Module, x: Tensor, kept: Tensor) -> Tensor:
    """A LayerNorm or RMSNorm of the channels `kept` (indices) of x [..., dim]; 0 in the others."""
    inner, weight, bias = x[..., kept], _chosen(norm, "weight", kept), _chosen(norm, "bias", kept)
    if isinstance(norm, nn.LayerNorm):
        normed = F.layer_norm(inner, (len(kept),), weight, bias, norm.eps)
    else:
        eps: Any = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
        normed = F.rms_norm(inner.float(), (len(kept),), eps=eps).to(inner.dtype)
        normed = normed if weight is None else weight * normed
    return torch.zeros_like(x).index_copy(-1, kept, normed.to(x.dtype))


def mask_norm(norm: nn.Module, kept: Callable[[], Tensor | None]) -> RemovableHandle:
    """Let a norm see only the channels that `kept` names when it is called (None: all), until the handle is removed."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        channels = kept()
        return output if channels is None else norm_over(module, args[0], channels)

    return norm.register_forward_hook(hook)


def _chosen(norm: nn.Module, name: str, kept: Tensor) -> Tensor | None:
    parameter = getattr(norm, name, None)
    return None if parameter is None else parameter[kept]
