"""Search an order of input channels under which N:M pruning keeps more of the weights' magnitude.

Paper: https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html (Pool & Yu,
Channel Permutations for N:M Sparsity, 2021). Here for any N:M, with the best arrangement kept over all regressions,
thresholds relative to the mean magnitude (so that a rescaled matrix is searched alike), and first sweeps of large
matrices (`large.py`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.greedy_swap import GreedySwap
from core.algorithms.permutation.hill_climbing import Moves, Report, climb_hill
from core.algorithms.permutation.large import LARGE, first_halves, sweep_while_worth
from core.algorithms.permutation.objective import efficacy, kept_sum, row_wise_sum
from core.algorithms.permutation.stripe_pairs import StripePairs
from core.algorithms.permutation.stripe_triples import StripeTriples
from core.algorithms.permutation.windows import check_window
from core.errors import SpecError

Strategy = Literal["greedy_swap", "stripe_groups"]


@dataclass(frozen=True)
class FoundPermutation:
    """An order of a matrix's C columns, and what N:M keeps of its magnitude before and after."""

    permutation: Tensor  # int64 [C] on the matrix's device: new[:, i] = old[:, permutation[i]]
    kept_before: float
    kept_after: float
    upper_bound: float  # what row-wise pruning to n / m keeps
    seconds: float
    curve: tuple[tuple[float, float], ...] = ()  # seconds, and what was kept then (after a regression, perhaps less)

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
) -> FoundPermutation:
    """The best order found of the columns of `matrix` [K, C], C divisible by `m`.

    `width` (2 or 3) is the number of stripes in a window of `stripe_groups`; `escapes` bounds the regressions.
    `progress` is told the share that is done, often enough that it can stop the search by raising.
    Raises SpecError if N:M does not fit the matrix, or windows of `width` stripes of `m` columns have too many
    permutations to try.
    """
    check_pattern(matrix, n, m)
    if strategy == "stripe_groups":
        check_window(m, width)
    start = time.perf_counter()
    magnitude = matrix.detach().abs()
    if magnitude.dtype not in (torch.float32, torch.float64):
        magnitude = magnitude.float()
    before, bound = kept_sum(magnitude, n, m), row_wise_sum(magnitude, n, m)
    curve = [(0.0, before)]

    def report(done: float, kept: float) -> None:
        if kept != curve[-1][1]:
            curve.append((time.perf_counter() - start, kept))
        if progress:
            progress(done)

    permutation = Search(n, m, strategy, width, escapes, generator)(magnitude, report)
    after = kept_sum(magnitude[:, permutation], n, m)
    return FoundPermutation(permutation, before, after, bound, time.perf_counter() - start, tuple(curve))


@dataclass(frozen=True)
class Search:
    """A strategy with its settings."""

    n: int
    m: int
    strategy: Strategy
    width: int
    escapes: int
    generator: torch.Generator

    def __call__(self, magnitude: Tensor, report: Report) -> Tensor:
        """The permutation found of [K, C]."""
        large = self.strategy == "stripe_groups" and magnitude.shape[1] > LARGE
        if large and self.width == 3:
            first = first_halves(magnitude, self.n, self.m, self, report)
            arrangement = Arrangement(magnitude[:, first], self.n, self.m)
            escapes = 10 * max(self.escapes, 100)
            second = climb_hill(
                StripePairs(arrangement), escapes, self.generator, lambda d, kept: report(0.5 + 0.5 * d, kept)
            )
            return first[second]
        arrangement = Arrangement(magnitude, self.n, self.m)
        if arrangement.n_stripes == 1:
            return arrangement.permutation
        moves = self.moves(arrangement)
        if large and isinstance(moves, StripePairs):
            sweep_while_worth(moves, lambda: report(0.0, arrangement.kept))
        return climb_hill(moves, self.escapes, self.generator, report)

    def moves(self, arrangement: Arrangement) -> Moves:
        if self.strategy == "greedy_swap":
            return GreedySwap(arrangement)
        if self.width == 2 or arrangement.n_stripes == 2:
            return StripePairs(arrangement)
        return StripeTriples(arrangement)


def check_pattern(matrix: Tensor, n: int, m: int) -> None:
    """Raise SpecError if N:M is not a valid pattern, or the columns cannot be grouped in `m`."""
    if not 0 < n < m:
        raise SpecError.of("n", n, f"must be from 1 to {m - 1}", "Choose n less than m.")
    if matrix.shape[1] % m:
        message = f"does not divide the {matrix.shape[1]} columns of the matrix"
        raise SpecError.of("m", m, message, "Choose an m that divides them.")
