"""A weight with correlated inputs, and a slow oracle of the second-order sweep."""

from functools import partial

import torch
from torch import Tensor

from core.algorithms.masks import keep_largest, nm_mask
from core.algorithms.quantization_grids import min_max
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import NOfM

EXACT = torch.float64


def problem(rows: int = 12, d: int = 24, n: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs X = G A, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=EXACT)
    x = torch.randn(n, d, generator=generator, dtype=EXACT) @ mixing
    return torch.randn(rows, d, generator=generator, dtype=EXACT), 2 / n * x.T @ x


def damped(hessian: Tensor, damping: float = 0.01) -> Tensor:
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def rounding(bits: int = 3, symmetric: bool = True, group_size: int | None = None) -> Rounding:
    return Rounding(partial(min_max, bits=bits, symmetric=symmetric), group_size)


def surgeon(weight: Tensor, hessian: Tensor, *, pattern=None, old=None, bits=None, group_size=None, order=None):
    """Optimal brain surgeon column by column, with the inverse of what is left of the Hessian computed anew each time.

    The slow way, O(d^4), of what `solve` does; it shares only `min_max` and the choice of the largest with it. In
    a given order of the columns, grids are those of the original groups.
    """
    if order is not None:
        grids = [min_max(part.float(), bits, True) for part in weight.split(group_size or len(hessian), dim=1)]
        static = [grids[i // (group_size or len(hessian))] for i in order]
        weight, hessian = weight[:, order], hessian[order][:, order]
    d, weight = len(hessian), weight.clone()
    mask = torch.ones_like(weight, dtype=torch.bool) if old is None else old.clone()
    cost = torch.stack([1 / torch.linalg.inv(hessian[i:, i:])[0, 0] for i in range(d)])  # of a unit change of column i
    width = pattern.m if isinstance(pattern, NOfM) else pattern.columns if pattern is not None else d
    grid = None if bits is None else min_max(weight.float(), bits, True)
    for i in range(d):
        if pattern is not None and i % width == 0:
            columns = slice(i, min(i + width, d))
            scores = (weight[:, columns].square() * cost[columns]).masked_fill(~mask[:, columns], -1)
            if isinstance(pattern, NOfM):
                mask[:, columns] &= nm_mask(scores, pattern.n, pattern.m)
            else:
                ends = [round(pattern.sparsity * len(weight) * end) for end in (columns.start, columns.stop)]
                mask[:, columns] &= keep_largest(scores.T, scores.numel() - (ends[1] - ends[0])).T
        if order is not None:
            grid = static[i]
        elif bits is not None and group_size is not None and i % group_size == 0:
            grid = min_max(weight[:, i : i + group_size].float(), bits, True)
        final = weight[:, i] * mask[:, i]
        if grid is not None:
            final = grid.nearest(final.float()[:, None])[:, 0].double()
        inverse = torch.linalg.inv(hessian[i:, i:])
        weight[:, i:] -= (weight[:, i] - final)[:, None] * inverse[0] / inverse[0, 0]
        weight[:, i] = final
    return (weight, mask) if order is None else (weight[:, torch.tensor(order).argsort()], mask)
