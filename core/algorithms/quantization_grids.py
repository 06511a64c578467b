"""Uniform grids for weights, and the range estimators that fit them to rows of values.

A grid has the codes 0..2**bits - 1. A code means `scale * (code - zero_point)`. Zero is always on the grid, so pruned
weights stay exactly zero. A symmetric grid has its zero point at 2**(bits - 1), hence one level more below zero than
above, and for a range of [-r, r] the scale r / (2**(bits - 1) - 0.5): half a step is cut off at the upper end and half
a step is spare at the lower end. `torch.ao.quantization` and compressed-tensors do the same. Rounding is half to even.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise
from core.nn.quant_linear import QuantLinear

_SMALLEST = torch.finfo(torch.float32).tiny
MSE_FACTORS = tuple(step / 50 for step in range(1, 61))  # 0.02 .. 1.2, with 1.0 itself
IMPORTANCE_FACTORS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, *(step / 20 for step in range(13, 25)))  # .. 1.2


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


class Fit(Protocol):
    """Chooses a grid for each row of values [rows, n]."""

    def __call__(self, rows: Tensor, importance: Tensor | None = None, /) -> Grid:
        """`importance` says how much a squared error of each value counts, [n] or [rows, n]; None: all alike."""
        ...


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
    return _best(x, _multiples(x, MSE_FACTORS, bits, symmetric, dtype))


def importance_weighted(
    x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32, *, importance: Tensor | None = None
) -> Grid:
    """The grid with the least squared error of values x [rows, n], weighted with `importance` [n] or [rows, n].

    Of the multiples IMPORTANCE_FACTORS of the min-max range, and of what `_refitted` makes of each, the best for each
    row. Importances are not negative; None: all are alike.
    """
    importance = x.new_ones(1) if importance is None else importance

    def candidates() -> Iterator[Grid]:
        for grid in _multiples(x, IMPORTANCE_FACTORS, bits, symmetric, dtype):
            yield grid
            yield _refitted(grid, x, importance, dtype)
            if not symmetric:
                yield _refitted(_recentred(grid, x, importance), x, importance, dtype)

    return _best(x, candidates(), importance)


RangeEstimatorName = Literal["min-max", "percentile", "mse", "imatrix"]
RANGE_ESTIMATORS: dict[str, Callable[..., Grid]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
    "imatrix": importance_weighted,
}


@dataclass(frozen=True)
class QuantizationScheme:
    """How the weights of a linear layer are quantized: bits, what shares a scale, and the range estimator."""

    bits: int
    symmetric: bool = True
    group_size: int | None = None  # consecutive inputs that share a scale; None: all inputs of an output channel
    range_estimator: RangeEstimatorName = "min-max"
    percentile: float = 99.9  # for the range estimator of that name

    def fit(self, rows: Tensor, importance: Tensor | None = None, *, dtype: torch.dtype = torch.float32) -> Grid:
        """The grid of each row of values [rows, n]; scales are rounded to `dtype`.

        `importance` [n] or [rows, n] is for the range estimator "imatrix", which needs it.
        """
        more: dict[str, Any] = {"share": self.percentile} if self.range_estimator == "percentile" else {}
        if self.range_estimator == "imatrix":
            assert importance is not None, "only what has seen inputs can weigh errors by them"
            more = {"importance": importance}
        return RANGE_ESTIMATORS[self.range_estimator](rows, self.bits, self.symmetric, dtype, **more)

    def pack(self, linear: nn.Linear, quantize: Callable[[Fit, int | None], QuantizedWeight]) -> QuantLinear:
        """The layer that replaces `linear`, with what `quantize` makes of its weight.

        `quantize` is given a function that fits grids to rows, and the group size (None: one group); it may be called
        twice, see `in_stored_dtype`.
        """
        group_size = self.group_size if self.group_size and self.group_size < linear.in_features else None
        codes, scales, zero_points = in_stored_dtype(
            linear, lambda dtype: quantize(partial(self.fit, dtype=dtype), group_size)
        )
        offsets = None if self.symmetric else zero_points
        return QuantLinear.of(linear, codes, scales, offsets, bits=self.bits, group_size=group_size)


def in_stored_dtype(linear: nn.Linear, quantize: Callable[[torch.dtype], QuantizedWeight]) -> QuantizedWeight:
    """What `quantize` makes with scales of the preferred dtype of `scale_dtypes`, and these in that dtype.

    Where it is not precise enough, `quantize` is called again for float32.
    """
    for dtype in scale_dtypes(linear.weight.dtype):
        found = quantize(dtype)
        if is_precise(found.scales, dtype):
            break
    return found._replace(scales=found.scales.to(dtype))


def quantize_groups(
    weight: Tensor, fit: Fit, group_size: int | None, importance: Tensor | None = None
) -> QuantizedWeight:
    """Round a weight [out, in] to the grids that `fit` chooses for each group of inputs, or each whole row (None).

    Where the group size does not divide the number of inputs, the last group is shorter. `importance` [in] is how much
    a squared error of a weight of each input counts.
    """
    out_features, in_features = weight.shape
    size = group_size or in_features
    whole = in_features // size * size

    def split(tensor: Tensor) -> list[Tensor]:
        return [part for part in (tensor[:, :whole].reshape(-1, size), tensor[:, whole:]) if part.numel()]

    parts = split(weight)
    known = [] if importance is None else [split(importance.expand_as(weight))]
    grids = [fit(*part) for part in zip(parts, *known, strict=True)]

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


def _multiples(x: Tensor, factors: Iterable[float], bits: int, symmetric: bool, dtype: torch.dtype) -> Iterator[Grid]:
    """The grid of the min-max range of each row, and those of its multiples."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    for factor in (1.0, *factors, *(_factors_of_exact_ends(bits) if symmetric else ())):
        yield grid_between(factor * low, factor * high, bits, symmetric, dtype)


def _best(x: Tensor, grids: Iterator[Grid], importance: Tensor | float = 1.0) -> Grid:
    """For each row of x the grid with the least weighted squared error; of equal ones, the first."""
    best = next(grids)
    scale, zero_point = best.scale, best.zero_point
    least = _weighted_error(best, x, importance)
    for grid in grids:
        error = _weighted_error(grid, x, importance)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, grid.scale, scale)
        zero_point = torch.where(better, grid.zero_point, zero_point)
    return Grid(scale, zero_point, best.bits)


def _weighted_error(grid: Grid, x: Tensor, importance: Tensor | float) -> Tensor:
    return ((grid.nearest(x) - x).square() * importance).sum(1, keepdim=True)


def _refitted(grid: Grid, x: Tensor, importance: Tensor, dtype: torch.dtype) -> Grid:
    """The same codes with the scale that is best for them, sum(m x q) / sum(m q^2), q the code less the zero point."""
    steps = grid.quantize(x) - grid.zero_point
    scale = (importance * x * steps).sum(1, keepdim=True) / (importance * steps.square()).sum(1, keepdim=True)
    usable = torch.isfinite(scale) & (scale >= _SMALLEST)
    return replace(grid, scale=torch.where(usable, scale, grid.scale).to(dtype).float())


def _recentred(grid: Grid, x: Tensor, importance: Tensor) -> Grid:
    """The grid with the code for zero where the weighted least squares of x by its codes has it."""
    weights = importance / importance.sum(-1, keepdim=True)
    codes = grid.quantize(x)
    mean, centre = (weights * x).sum(1, keepdim=True), (weights * codes).sum(1, keepdim=True)
    slope = (weights * (codes - centre) * (x - mean)).sum(1, keepdim=True)
    slope = slope / (weights * (codes - centre).square()).sum(1, keepdim=True)
    zero_point = torch.round(centre - mean / slope).clamp(0, 2**grid.bits - 1)
    return replace(grid, zero_point=torch.where(torch.isfinite(zero_point), zero_point, grid.zero_point))
