"""RepQ-ViT: move the scales of each channel after a norm into the norm and the layers that read it.

Paper: https://arxiv.org/abs/2212.08254, section 3.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.algorithms.activation_ranges import static_quantizer
from core.nn.activation_quantizer import ActivationGrid, ActivationQuantizer
from core.nn.precision import wide


@torch.no_grad()
def reparameterize_(norm: nn.Module, layers: Sequence[nn.Linear], channels: ActivationGrid) -> ActivationQuantizer:
    """Change the norm so that one affine grid gives the codes that `channels`, scales and zero points [d], gave.

    With s' the mean scale, z' the rounded mean zero point, r1 = s / s' and r2 = z - z', the norm has weight / r1 and
    (bias + s r2) / r1; the layers have weight * r1 and bias - weight (s r2), which leaves their outputs as they were.
    Returns the quantizer of the one grid.
    """
    scale, zero_point = channels.scale, channels.zero_point
    assert zero_point is not None, "the paper's grids are affine"
    mean, weight = scale.mean().reshape(1), norm.get_parameter("weight")
    low, high = (mean * (level - zero_point.mean().round()) for level in channels.limits)
    quantizer = static_quantizer(channels.bits, False, low, high, weight.dtype)
    factor = scale / quantizer.static_scale.to(scale.dtype)
    offset = scale * (zero_point - quantizer.static_zero_point)
    bias = norm.get_parameter("bias")
    weight.copy_(wide(weight) / factor)
    bias.copy_((wide(bias) + offset) / factor)
    for layer in layers:
        _undo_(layer, factor, offset)
    return quantizer


def _undo_(layer: nn.Linear, factor: Tensor, offset: Tensor) -> None:
    weight = wide(layer.weight)
    moved = -(weight @ offset.to(weight))
    bias = moved if layer.bias is None else wide(layer.bias) + moved
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype))
    layer.weight.copy_(weight * factor.to(weight))
