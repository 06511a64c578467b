"""Palettes: the few values that stand for many, found by k-means on the line (Lloyd's algorithm) without chance.

Papers: https://arxiv.org/abs/1510.00149 (Deep Compression, section 3), https://arxiv.org/abs/1612.01543 (values
weighted by what an error in them costs). Sorted once, a cluster is a run of values, and its mean comes from two running
sums.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Palettes(NamedTuple):
    """The palette of each row, and what it costs."""

    values: Tensor  # [rows, n], ascending, float64
    error: Tensor  # [rows]: the weighted sum of squared errors


class SortedValues:
    """Rows of values in ascending order, with running sums of their weights; float64.

    `importance` [rows, n] weights the squared errors; a row without any counts all its values alike.
    """

    def __init__(self, values: Tensor, importance: Tensor):
        importance = importance.double()
        importance = torch.where(importance.sum(1, keepdim=True) > 0, importance, 1.0)
        self.values, order = values.double().sort(dim=1)
        weights = importance.gather(1, order)
        self.sums = [_running(weights * self.values**power) for power in range(3)]  # of m, m w and m w^2

    def quantiles(self, n: int) -> Tensor:
        """The values [rows, n] in the middle of n shares of equal weight."""
        total = self.sums[0][:, -1:]
        places = (torch.arange(n, dtype=total.dtype, device=total.device) + 0.5) / n * total
        found = torch.searchsorted(self.sums[0][:, 1:].contiguous(), places.contiguous())
        return self.values.gather(1, found.clamp(max=self.values.shape[1] - 1))

    def uniform(self, n: int) -> Tensor:
        """n values [rows, n] at equal distances from the smallest to the largest."""
        steps = torch.linspace(0, 1, n, dtype=self.values.dtype, device=self.values.device)
        return torch.lerp(self.values[:, :1], self.values[:, -1:], steps)

    def error(self, palettes: Tensor) -> Tensor:
        """The weighted sum of squared errors [rows] with each value at the nearest of its palette [rows, n]."""
        weight, first, second = self._clusters(palettes)
        return (second - 2 * palettes * first + palettes.square() * weight).sum(1).clamp(min=0)

    def lloyd(self, palettes: Tensor, pinned: Tensor | None = None) -> Tensor:
        """One step: the weighted mean of each cluster; an empty one keeps its value, and so do `pinned` [rows, n]."""
        weight, first, _ = self._clusters(palettes)
        means = torch.where(weight > 0, first / weight.clamp(min=torch.finfo(weight.dtype).tiny), palettes)
        means = means if pinned is None else torch.where(pinned, palettes, means)
        return means.sort(dim=1).values

    def _clusters(self, palettes: Tensor) -> list[Tensor]:
        """The sums [rows, n] of m, m w and m w^2 over the values nearest to each value of a palette."""
        borders = (palettes[:, 1:] + palettes[:, :-1]) / 2
        ends = torch.searchsorted(self.values, borders.contiguous(), right=True)
        first, last = torch.zeros_like(ends[:, :1]), torch.full_like(ends[:, :1], self.values.shape[1])
        ends = torch.cat([first, ends, last], dim=1)
        return [sums.gather(1, ends).diff(dim=1) for sums in self.sums]


def find_palettes(values: Tensor, importance: Tensor, bits: int, steps: int, *, with_zero: bool = False) -> Palettes:
    """A palette of 2**bits values for each row of values [rows, n]: Lloyd from quantiles, or from a uniform grid.

    The better of the two is taken, so that none is worse than the uniform grid between the ends. `with_zero` keeps one
    value at zero.
    """
    sorted_values = SortedValues(values, importance)
    n = 2**bits
    found = []
    for start in (sorted_values.quantiles(n), sorted_values.uniform(n)):
        palettes = _with_zero(start) if with_zero else start
        for _ in range(steps):
            pinned = palettes == 0 if with_zero else None
            before, palettes = palettes, sorted_values.lloyd(palettes, pinned)
            if torch.equal(before, palettes):
                break
        found.append(Palettes(palettes, sorted_values.error(palettes)))
    by_quantiles, by_grid = found
    better = by_grid.error < by_quantiles.error
    return Palettes(
        torch.where(better[:, None], by_grid.values, by_quantiles.values),
        torch.where(better, by_grid.error, by_quantiles.error),
    )


def nearest_codes(values: Tensor, palettes: Tensor) -> Tensor:
    """The index of the nearest value of its row's palette [rows, n], ascending, for each of values [rows, m]."""
    borders = ((palettes[:, 1:] + palettes[:, :-1]) / 2).contiguous()
    return torch.searchsorted(borders, values.to(borders.dtype).contiguous())


def _with_zero(palettes: Tensor) -> Tensor:
    """The palettes with the value nearest to zero moved there."""
    nearest = palettes.abs().argmin(dim=1, keepdim=True)
    return palettes.scatter(1, nearest, 0.0).sort(dim=1).values


def _running(x: Tensor) -> Tensor:
    """Sums of the first 0, 1, ..., n columns of x [rows, n]: [rows, n + 1]."""
    return torch.nn.functional.pad(x.cumsum(1), (1, 0))
