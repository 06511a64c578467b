"""Observers: which uniform grid a row of values is rounded to.

A grid has the codes 0..2**bits-1 and stands for `scale * (code - zero_point)`. Zero is always one of its
values, so that pruned weights stay exactly zero. Symmetric grids leave code 0 out: the largest is then the
negative of the smallest. Rounding is half-to-even everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST = torch.finfo(torch.float32).tiny
MSE_FACTORS = tuple(step / 50 for step in range(1, 61))  # 0.02 .. 1.2, with 1.0 itself


@dataclass(frozen=True)
class Grid:
    """One grid for each row: scale and zero point [rows, 1], both of float values."""

    scale: Tensor
    zero_point: Tensor
    bits: int
    symmetric: bool

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return (1 if self.symmetric else 0), 2**self.bits - 1

    def quantize(self, x: Tensor) -> Tensor:
        """Codes [rows, n], as floats, of values x [rows, n]."""
        return torch.clamp(torch.round(x / self.scale) + self.zero_point, *self.code_range)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes [rows, n]."""
        return self.scale * (codes - self.zero_point)

    def nearest(self, x: Tensor) -> Tensor:
        """The grid's values nearest to x [rows, n]."""
        return self.dequantize(self.quantize(x))


class QuantizedWeight(NamedTuple):
    """Codes [out, in]; scales and zero points [out, n_groups]. All float32."""

    codes: Tensor
    scales: Tensor
    zero_points: Tensor


def grid_between(low: Tensor, high: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid from `low` to `high` [rows, 1], widened to hold zero; its scales are values of `dtype`.

    A symmetric grid reaches as far as the larger of the two. Where both are zero the scale is 1. A scale that
    `dtype` cannot hold becomes 0 or infinite there.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(high, -low) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale < _SMALLEST, 1.0, scale).to(dtype).float()
    if symmetric:
        zero_point = torch.full_like(scale, 2 ** (bits - 1))
    else:
        zero_point = torch.round(-low / scale).clamp(0, 2**bits - 1)
    return Grid(scale, zero_point, bits, symmetric)


def min_max(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid that holds all of each row of x [rows, n]."""
    return grid_between(x.amin(1, keepdim=True), x.amax(1, keepdim=True), bits, symmetric, dtype)


def percentile(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32, share: float = 99.9) -> Grid:
    """The grid between the two quantiles that leave `100 - share` percent outside, on each side, of each row."""
    ordered = x.sort(dim=1).values
    last = x.shape[1] - 1
    low, high = (_interpolated(ordered, last * q) for q in (1 - share / 100, share / 100))
    return grid_between(low, high, bits, symmetric, dtype)


def mean_squared_error(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """Of the min-max grid shrunk and stretched by MSE_FACTORS, the one of least squared error, row by row."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    best = grid_between(low, high, bits, symmetric, dtype)
    scale, zero_point = best.scale, best.zero_point
    least = (best.nearest(x) - x).square().sum(1, keepdim=True)
    for factor in MSE_FACTORS:
        grid = grid_between(factor * low, factor * high, bits, symmetric, dtype)
        error = (grid.nearest(x) - x).square().sum(1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, grid.scale, scale)
        zero_point = torch.where(better, grid.zero_point, zero_point)
    return Grid(scale, zero_point, bits, symmetric)


def quantize_groups(weight: Tensor, group_size: int | None, observe: Callable[[Tensor], Grid]) -> QuantizedWeight:
    """Weight [out, in] on the grids that `observe` finds for each group of inputs, or each whole row (None).

    Where the group size does not divide the inputs, the last group is shorter.
    """
    out_features, in_features = weight.shape
    size = group_size or in_features
    whole = in_features // size * size
    parts = [part for part in (weight[:, :whole].reshape(-1, size), weight[:, whole:]) if part.numel()]
    grids = [observe(part) for part in parts]

    def by_row(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(out_features, -1) for tensor in tensors], dim=1)

    codes = by_row([grid.quantize(part) for grid, part in zip(grids, parts, strict=True)])
    return QuantizedWeight(codes, by_row([g.scale for g in grids]), by_row([g.zero_point for g in grids]))


def _interpolated(ordered: Tensor, position: float) -> Tensor:
    """The value [rows, 1] at a position between the columns of an ordered x [rows, n]."""
    below = int(position)
    above = min(below + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, below : below + 1], ordered[:, above : above + 1], position - below)


OBSERVERS: dict[str, Callable[..., Grid]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
}
