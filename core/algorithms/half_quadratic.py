"""Half-quadratic quantization: zero points that make a robust norm of the weights' errors least, without data.

Source: Badri and Shaji, https://mobiusml.github.io/hqq_blog/ (2023). The sum of |w - s (q - z)|^p with p < 1 counts
outliers less than the squared error does. It is split with an auxiliary error e, and two steps alternate: e is the
error shrunk by the proximal operator of |.|^p, then z is the mean of q - (w - e) / s. The weight of the quadratic term,
`beta`, grows by the factor KAPPA each time.
"""

from dataclasses import replace

import torch
from torch import Tensor

from core.algorithms.quantization_grids import Grid, min_max

KAPPA = 1.01
_SMALLEST = torch.finfo(torch.float32).tiny


class RealGrid(Grid):
    """A grid whose zero points are real numbers, so that zero itself may lie between two of its values."""

    def quantize(self, x: Tensor) -> Tensor:
        """Codes [rows, n], as floats, of values x [rows, n]."""
        return torch.clamp(torch.round(x / self.scale + self.zero_point), 0, 2**self.bits - 1)


def half_quadratic(
    x: Tensor,
    bits: int,
    dtype: torch.dtype = torch.float32,
    *,
    norm: float = 0.7,
    beta: float = 10.0,
    iterations: int = 20,
    fit_scale: bool = False,
) -> RealGrid:
    """The grid of least sum |error|^norm among those of all iterations, and that of `min_max`, for each row [rows, n].

    Scales and zero points are rounded to `dtype`. Rows that hold exact zeros (pruned weights) have
    integer zero points, and keep their zeros. `fit_scale` also finds the least-squares scale after each zero point.
    """
    holds_zero = (x == 0).any(dim=1, keepdim=True)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale < _SMALLEST, 1.0, scale).to(dtype).float()
    grid = _stored(RealGrid(scale, -low / scale, bits), holds_zero, dtype)
    plain = min_max(x, bits, symmetric=False, dtype=dtype)
    best = RealGrid(plain.scale, plain.zero_point, bits)
    least = lp_error(best, x, norm)
    for iteration in range(iterations + 1):
        error = lp_error(grid, x, norm)
        better = error < least
        least = torch.where(better, error, least)
        scale = torch.where(better, grid.scale, best.scale)
        best = RealGrid(scale, torch.where(better, grid.zero_point, best.zero_point), bits)
        grid = _stored(_improved(grid, x, norm, beta * KAPPA**iteration, fit_scale), holds_zero, dtype)
    return best


def lp_error(grid: Grid, x: Tensor, norm: float) -> Tensor:
    """Sum of |error|^norm of each row of x [rows, n], as [rows, 1]."""
    return (grid.nearest(x) - x).abs().pow(norm).sum(1, keepdim=True)


def shrink(x: Tensor, beta: float, norm: float) -> Tensor:
    """sign(x) max(|x| - |x|^(norm - 1) / beta, 0), the proximal step of |.|^norm; 0 stays 0."""
    size = x.abs()
    return x.sign() * (size - size.clamp_min(_SMALLEST).pow(norm - 1) / beta).clamp_min(0)


def _improved(grid: RealGrid, x: Tensor, norm: float, beta: float, fit_scale: bool) -> RealGrid:
    """The grid after one iteration. Errors are shrunk in steps of the grid, so that the unit of x does not matter."""
    codes = grid.quantize(x)
    kept = x / grid.scale - shrink((x - grid.dequantize(codes)) / grid.scale, beta, norm)  # without outliers, in steps
    zero_point = (codes - kept).mean(1, keepdim=True)
    if not fit_scale:
        return replace(grid, zero_point=zero_point)
    steps = codes - zero_point
    factor = (kept * steps).sum(1, keepdim=True) / steps.square().sum(1, keepdim=True)
    usable = torch.isfinite(factor) & (grid.scale * factor >= _SMALLEST)
    return replace(grid, scale=torch.where(usable, grid.scale * factor, grid.scale), zero_point=zero_point)


def _stored(grid: RealGrid, holds_zero: Tensor, dtype: torch.dtype) -> RealGrid:
    """The grid as it is stored."""
    whole = grid.zero_point.round().clamp(0, 2**grid.bits - 1)
    zero_point = torch.where(holds_zero, whole, grid.zero_point.to(dtype).float())
    return replace(grid, scale=grid.scale.to(dtype).float(), zero_point=zero_point)
