"""Search an order of input channels under which N:M pruning keeps more of the weights' magnitude.

Paper: https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html (Pool & Yu,
Channel Permutations for N:M Sparsity, 2021). Here for any N:M, with the best arrangement kept over all regressions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.errors import SpecError
from core.permutation.arrangement import Arrangement
from core.permutation.climb import climb
from core.permutation.greedy_swap import GreedySwap
from core.permutation.objective import efficacy, kept_sum, row_wise_sum
from core.permutation.stripe_groups import StripeGroups
from core.permutation.windows import check_window

Strategy = Literal["greedy_swap", "stripe_groups"]


@dataclass(frozen=True)
class Found:
    """An order of a matrix's C columns, and what N:M keeps of its magnitude before and after."""

    permutation: Tensor  # int64 [C] on the matrix's device: new[:, i] = old[:, permutation[i]]
    kept_before: float
    kept_after: float
    upper_bound: float  # what row-wise pruning to n / m keeps
    seconds: float

    @property
    def efficacy(self) -> float:
        """Percent of the way from the default order (0) to row-wise pruning (100)."""
        return efficacy(self.kept_before, self.kept_after, self.upper_bound)


@torch.no_grad()
def find_permutation(
    matrix: Tensor,
    *,
    n: int = 2,
    m: int = 4,
    strategy: Strategy = "stripe_groups",
    width: int = 2,
    escapes: int = 100,
    generator: torch.Generator,
    progress: Callable[[float], None] | None = None,
) -> Found:
    """The best order found of the columns of `matrix` [K, C], C divisible by `m`.

    `width` (2 or 3) is the number of stripes in a window of `stripe_groups`; `escapes` bounds the regressions.
    Raises SpecError where windows of `width` stripes of `m` columns have too many permutations to try.
    """
    check_pattern(matrix, n, m)
    if strategy == "stripe_groups":
        check_window(m, width)
    start = time.perf_counter()
    magnitude = matrix.detach().abs()
    if magnitude.dtype not in (torch.float32, torch.float64):
        magnitude = magnitude.float()
    before, bound = kept_sum(magnitude, n, m), row_wise_sum(magnitude, n, m)
    arrangement = Arrangement(magnitude, n, m)
    permutation = arrangement.permutation
    if arrangement.n_stripes >= 2:
        moves = GreedySwap(arrangement) if strategy == "greedy_swap" else StripeGroups(arrangement, width)
        permutation = climb(moves, escapes, generator, progress or (lambda done: None))
    after = kept_sum(magnitude[:, permutation], n, m)
    return Found(permutation, before, after, bound, time.perf_counter() - start)


def check_pattern(matrix: Tensor, n: int, m: int) -> None:
    if not 0 < n < m:
        raise SpecError.of("n", n, f"must be from 1 to {m - 1}", "Choose n less than m.")
    if matrix.ndim != 2 or matrix.shape[1] % m:
        message = f"does not divide the columns of a matrix {list(matrix.shape)}"
        raise SpecError.of("m", m, message, "Choose an m that divides them.")
