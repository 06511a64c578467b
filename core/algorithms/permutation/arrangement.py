"""The columns in their order so far, and exactly what N:M keeps of them."""

import torch
from torch import Tensor

from core.algorithms.permutation.objective import stripe_sums

MEAN_MAGNITUDE = 0.5  # the reference's thresholds are absolute and made for uniform numbers from 0 to 1
NOISE = 2.0**-20  # gains below this share of what a window keeps may be rounding of float32


class Arrangement:
    """Columns [C, K] in float32, rescaled so that the thresholds of the reference mean the same for any matrix."""

    def __init__(self, magnitude: Tensor, n: int, m: int):
        self.n, self.m = n, m
        mean = float(magnitude.mean(dtype=torch.float64))
        self.scale = MEAN_MAGNITUDE / mean if mean > 0 else 1.0
        self.columns = (magnitude * self.scale).float().t().contiguous()
        self.permutation = torch.arange(len(self.columns), device=magnitude.device)
        self.sums = stripe_sums(self.columns, n, m)  # [G], float64

    @property
    def n_stripes(self) -> int:
        return len(self.sums)

    @property
    def everyone(self) -> Tensor:
        """All stripes, [G]."""
        return torch.arange(self.n_stripes, device=self.columns.device)

    @property
    def kept(self) -> float:
        """S, in the unit of the matrix."""
        return float(self.sums.sum()) / self.scale

    @property
    def stripes(self) -> Tensor:
        """[G, m, K]"""
        return self.columns.unflatten(0, (-1, self.m))

    def noise(self, width: int) -> float:
        """Below it a gain of `width` stripes together is not to be believed."""
        return NOISE * width * float(self.sums.mean())

    def places(self, windows: Tensor) -> Tensor:
        """Where the columns of windows of stripes stand: from [j, w] to [j, w * m]."""
        within = torch.arange(self.m, device=windows.device)
        return (windows[:, :, None] * self.m + within).flatten(1)

    def gains(self, windows: Tensor, orders: Tensor) -> Tensor:
        """Exact gain of putting each window [j, w] of stripes into the order [j, w * m]; float64 [j]."""
        sources = self.places(windows).gather(1, orders)
        after = stripe_sums(self.columns[sources.flatten()], self.n, self.m).view(windows.shape)
        return (after - self.sums[windows]).sum(dim=1)

    def apply(self, windows: Tensor, orders: Tensor) -> Tensor:
        """Put windows [j, w] of stripes into these orders [j, w * m], new[i] = old[order[i]]; the changed stripes [t].

        Windows may share a stripe that all but one of them leave as it is.
        """
        targets = self.places(windows)
        sources = targets.gather(1, orders)
        moved = targets != sources
        targets, sources = targets[moved], sources[moved]
        self.columns[targets] = self.columns[sources]
        self.permutation[targets] = self.permutation[sources]
        changed = (targets // self.m).unique()
        self.sums[changed] = stripe_sums(self.stripes[changed].flatten(0, 1), self.n, self.m)
        return changed
