"""Uniform grids for weights, and the range estimators that fit them to rows of values.

A grid has the codes 0..2**bits - 1. A code means `scale * (code - zero_point)`. Zero is always on the grid, so pruned
weights stay exactly zero. A symmetric grid has its zero point at 2**(bits - 1), hence one level more below zero than
above, and for a range of [-r, r] the scale r / (2**(bits - 1) - 0.5): half a step is cut off at the upper end and half
a step is spare at the lower end. `torch.ao.quantization` and compressed-tensors do the same. Rounding is half to even.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise
from core.nn.quant_linear import QuantLinear

_SMALLEST = torch.finfo(torch.float32).tiny
MSE_FACTORS = tuple(step / 50 for step in range(1, 61))  # 0.02 .. 1.2, with 1.0 itself


@dataclass(frozen=True)
class Grid:
    """One grid for each row: scale and zero point, both float32 [rows, 1]."""

    scale: Tensor
    zero_point: Tensor
    bits: int

    def quantize(self, x: Tensor) -> Tensor:
        """Codes [rows, n], as floats, of values x [rows, n]."""
        return torch.clamp(torch.round(x / self.scale) + self.zero_point, 0, 2**self.bits - 1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes [rows, n]."""
        return self.scale * (codes - self.zero_point)

    def nearest(self, x: Tensor) -> Tensor:
        """The values on the grid that are nearest to x [rows, n]."""
        return self.dequantize(self.quantize(x))


Fit = Callable[[Tensor], Grid]  # rows of values [rows, n] -> a grid for each


class QuantizedWeight(NamedTuple):
    """Codes [out, in]; scales and zero points [out, n_groups]. All float32."""

    codes: Tensor
    scales: Tensor
    zero_points: Tensor


def grid_between(low: Tensor, high: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid for the range from `low` to `high` [rows, 1], widened to include zero; scales are rounded to `dtype`.

    A symmetric grid covers the larger of the two on both sides. Where both are zero, the scale is 1. A scale that
    `dtype` cannot represent becomes 0 or infinite.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(high, -low) / (2 ** (bits - 1) - 0.5)
    else:
        scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale < _SMALLEST, 1.0, scale).to(dtype).float()
    if symmetric:
        zero_point = torch.full_like(scale, 2 ** (bits - 1))
    else:
        zero_point = torch.round(-low / scale).clamp(0, 2**bits - 1)
    return Grid(scale, zero_point, bits)


def min_max(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid for the whole range of each row of x [rows, n]."""
    return grid_between(x.amin(1, keepdim=True), x.amax(1, keepdim=True), bits, symmetric, dtype)


def percentile(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32, share: float = 99.9) -> Grid:
    """The grid between the quantiles `100 - share` % and `share` % of each row of x [rows, n]."""
    ordered = x.sort(dim=1).values
    last = x.shape[1] - 1
    low, high = (_interpolated(ordered, last * q) for q in (1 - share / 100, share / 100))
    return grid_between(low, high, bits, symmetric, dtype)


def mean_squared_error(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """Of several multiples of the min-max range, the one whose grid has the least squared error, row by row.

    The multiples are MSE_FACTORS and, for a symmetric grid, the two that put its largest or smallest code exactly on
    the end of the range.
    """
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    best = grid_between(low, high, bits, symmetric, dtype)
    scale, zero_point = best.scale, best.zero_point
    least = (best.nearest(x) - x).square().sum(1, keepdim=True)
    for factor in (*MSE_FACTORS, *(_factors_of_exact_ends(bits) if symmetric else ())):
        grid = grid_between(factor * low, factor * high, bits, symmetric, dtype)
        error = (grid.nearest(x) - x).square().sum(1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, grid.scale, scale)
        zero_point = torch.where(better, grid.zero_point, zero_point)
    return Grid(scale, zero_point, bits)


RangeEstimatorName = Literal["min-max", "percentile", "mse"]
RANGE_ESTIMATORS: dict[str, Callable[..., Grid]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
}


@dataclass(frozen=True)
class QuantizationScheme:
    """How the weights of a linear layer are quantized: bits, what shares a scale, and the range estimator."""

    bits: int
    symmetric: bool = True
    group_size: int | None = None  # consecutive inputs that share a scale; None: all inputs of an output channel
    range_estimator: RangeEstimatorName = "min-max"
    percentile: float = 99.9  # for the range estimator of that name

    def fit(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> Grid:
        """The grid of each row of values [rows, n]; scales are rounded to `dtype`."""
        more = {"share": self.percentile} if self.range_estimator == "percentile" else {}
        return RANGE_ESTIMATORS[self.range_estimator](rows, self.bits, self.symmetric, dtype, **more)

    def pack(self, linear: nn.Linear, quantize: Callable[[Fit, int | None], QuantizedWeight]) -> QuantLinear:
        """The layer that replaces `linear`, with what `quantize` makes of its weight.

        `quantize` is given a function that fits grids to rows, and the group size (None: one group). Scales have the
        preferred dtype of `scale_dtypes`; where that is not precise enough, `quantize` is called again for float32.
        """
        group_size = self.group_size if self.group_size and self.group_size < linear.in_features else None
        for dtype in scale_dtypes(linear.weight.dtype):
            codes, scales, zero_points = quantize(partial(self.fit, dtype=dtype), group_size)
            if is_precise(scales, dtype):
                break
        offsets = None if self.symmetric else zero_points
        return QuantLinear.of(linear, codes, scales.to(dtype), offsets, bits=self.bits, group_size=group_size)


def quantize_groups(weight: Tensor, fit: Fit, group_size: int | None) -> QuantizedWeight:
    """Round a weight [out, in] to the grids that `fit` chooses for each group of inputs, or each whole row (None).

    Where the group size does not divide the number of inputs, the last group is shorter.
    """
    out_features, in_features = weight.shape
    size = group_size or in_features
    whole = in_features // size * size
    parts = [part for part in (weight[:, :whole].reshape(-1, size), weight[:, whole:]) if part.numel()]
    grids = [fit(part) for part in parts]

    def by_row(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(out_features, -1) for tensor in tensors], dim=1)

    codes = by_row([grid.quantize(part) for grid, part in zip(grids, parts, strict=True)])
    return QuantizedWeight(codes, by_row([g.scale for g in grids]), by_row([g.zero_point for g in grids]))


def _interpolated(ordered: Tensor, position: float) -> Tensor:
    """The value [rows, 1] at a position between the columns of an ordered x [rows, n]."""
    below = int(position)
    above = min(below + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, below : below + 1], ordered[:, above : above + 1], position - below)


def _factors_of_exact_ends(bits: int) -> tuple[float, float]:
    """Multiples of a range [-r, r] at which r is the symmetric grid's largest value, or -r its smallest.

    The first gives the scale r / (2**(bits - 1) - 1) of a grid of 2**bits - 1 levels.
    """
    half = 2 ** (bits - 1)
    return (half - 0.5) / (half - 1), (half - 0.5) / half
