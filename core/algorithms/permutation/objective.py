"""What N:M keeps of a matrix, and how close an order of its columns comes to pruning without structure.

Groups of N:M ("stripes") are M consecutive columns of one row. Everything here is in magnitudes, |weight| [K, C].
"""

import torch
from torch import Tensor

from core.algorithms.permutation.subsets import largest

ROUNDING = 1e-12  # of sums in float64


def stripe_sums(columns: Tensor, n: int, m: int) -> Tensor:
    """What each stripe keeps: the sum over rows of its `n` largest of `m`; `columns` is [G * m, K], the answer [G].

    The selection is exact, the sum in float64.
    """
    stripes = columns.unflatten(0, (-1, m))  # [G, m, K]
    return torch.stack([part.sum(dim=-1, dtype=torch.float64) for part in largest(stripes, n)]).sum(dim=0)


def kept_sum(magnitude: Tensor, n: int, m: int) -> float:
    """S of Pool & Yu: what N:M keeps of the magnitude [K, C] in this order of columns."""
    return float(stripe_sums(magnitude.t().contiguous(), n, m).sum())


def row_wise_sum(magnitude: Tensor, n: int, m: int) -> float:
    """R, the upper bound: what stays when each row [C] keeps its C * n / m largest, wherever they stand."""
    n_kept = magnitude.shape[1] * n // m
    return float(magnitude.topk(n_kept, dim=1, sorted=False).values.sum(dtype=torch.float64))


def efficacy(before: float, after: float, bound: float) -> float:
    """Percent of the way from the default order (0) to row-wise pruning (100); 100 where there is no way to go."""
    way = bound - before
    return 100.0 if way <= ROUNDING * bound else 100.0 * (after - before) / way
