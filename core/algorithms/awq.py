"""AWQ: scales that protect the weights of salient channels, and clipping, each found by a search on calibration data.

Paper: https://arxiv.org/abs/2306.00978 (sections 3.2 and 3.3), and the authors' code for what it leaves open.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from core.algorithms.channel_scaling import of_channels, of_inputs, scaled_inputs
from core.algorithms.quantization_grids import Fit, QuantizationScheme, quantize_groups
from core.calibration.calls import Calls
from core.models.foldable import Fold
from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise

EXPONENTS = tuple(step / 20 for step in range(20))
CLIPS = tuple(1 - step / 20 for step in range(11))  # multiples of a group's range, from 1 to 0.5
_FLOOR = 1e-4


def salience_scales(magnitudes: Tensor, exponent: float) -> Tensor:
    """Mean input magnitudes [..., channels] to the power of `exponent`, with the middle of their range at 1."""
    scales = magnitudes.pow(exponent).clamp_min(_FLOOR)
    low, high = scales.amin(-1, keepdim=True), scales.amax(-1, keepdim=True)
    return scales / (low * high).sqrt()


@torch.no_grad()
def search_scales(
    model: nn.Module, fold: Fold, magnitudes: Tensor, calls: Calls, scheme: QuantizationScheme
) -> tuple[float, Tensor, list[float]]:
    """The best exponent, its scales for the producer's channels, and the loss of each of EXPONENTS.

    `magnitudes` are the mean input magnitudes of the consumers, [in] or [experts, in]. The loss is the mean squared
    error of the outputs of the fold's parent when all consumers are rounded; that of exponent 0 is rounding as it is.
    """
    layers = [model.get_submodule(name) for name in fold.consumers]
    weights = [layer.get_parameter("weight") for layer in layers]
    before = [weight.detach().clone() for weight in weights]
    expected = [output.cpu() for output in calls.outputs()]
    losses, candidates = [], []
    try:
        for exponent in EXPONENTS:
            scales = salience_scales(of_channels(fold, magnitudes), exponent)
            candidates.append(scales)
            for layer, weight, kept in zip(layers, weights, before, strict=True):
                weight.copy_(kept)
                weight.copy_(_rounded_when_scaled(layer, of_inputs(fold, scales), scheme))
            losses.append(_mean_error(calls, expected))
    finally:
        for weight, kept in zip(weights, before, strict=True):
            weight.copy_(kept)
    best = min(range(len(losses)), key=losses.__getitem__)
    return EXPONENTS[best], candidates[best], losses


@torch.no_grad()
def clipped(weight: Tensor, hessian: Tensor, fit: Fit, group_size: int | None) -> Tensor:
    """A weight [out, in], each group of its rows clipped to the range whose grid gives the least output error.

    The range is shrunk on both sides by one of CLIPS, so that zero stays. `hessian` [in, in] is that of the inputs, up
    to a factor; the error is that of one group by itself, as if the others were exact.
    """
    size = group_size or weight.shape[1]
    parts = []
    for start in range(0, weight.shape[1], size):
        columns = slice(start, start + size)
        parts.append(_clipped_group(weight[:, columns], hessian[columns, columns], fit))
    return torch.cat(parts, dim=1)


def _clipped_group(group: Tensor, hessian: Tensor, fit: Fit) -> Tensor:
    low, high = group.amin(1, keepdim=True), group.amax(1, keepdim=True)
    best, least = group, torch.full_like(low, torch.inf)
    for factor in CLIPS:
        candidate = group.clamp(factor * low.clamp(max=0), factor * high.clamp(min=0))
        error = fit(candidate).nearest(candidate) - group
        loss = ((error @ hessian) * error).sum(1, keepdim=True)
        best = torch.where(loss < least, candidate, best)
        least = torch.minimum(loss, least)
    return best


def _rounded_when_scaled(layer: nn.Module, factors: Tensor, scheme: QuantizationScheme) -> Tensor:
    """Q(W s) / s: what rounding leaves of a layer's weight whose input columns are multiplied by `factors`."""
    scaled = scaled_inputs(layer, factors)
    size = scheme.group_size if scheme.group_size and scheme.group_size < scaled.shape[1] else None
    for dtype in scale_dtypes(layer.get_parameter("weight").dtype):  # as they will be stored
        codes, scales, zero_points = quantize_groups(scaled, partial(scheme.fit, dtype=dtype), size)
        if is_precise(scales, dtype):
            break
    columns = torch.arange(scaled.shape[1], device=scaled.device) // (size or scaled.shape[1])
    rounded = scales[:, columns] * (codes - zero_points[:, columns])
    divisor = factors.to(rounded)
    if divisor.dim() == 2:
        divisor = divisor.repeat_interleave(len(rounded) // len(divisor), dim=0)
    return rounded / divisor


def _mean_error(calls: Calls, expected: Sequence[Tensor]) -> float:
    total, count = 0.0, 0
    for output, exact in zip(calls.outputs(), expected, strict=True):
        total += float((output - exact.to(output.device)).square().sum(dtype=torch.float64))
        count += exact.numel()
    return total / max(count, 1)
