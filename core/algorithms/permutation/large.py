"""Large matrices: a cheaper start for the climb, since its passes over all windows cost the square of the width.

Windows of three: as the reference does, halves first, then windows of two over the whole with ten times the escapes.
Windows of two: sweeps that are ours. One goes through blocks of windows and takes what improves right there, so that
a stripe changes many times in the time of one pass, where the reference's pass changes it once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from core.algorithms.permutation.hill_climbing import Report, improve
from core.algorithms.permutation.objective import kept_sum
from core.algorithms.permutation.ranking import Ranking
from core.algorithms.permutation.stripe_pairs import StripePairs

LARGE = 512  # columns
BLOCK = 16  # stripes
WORTH = 0.02  # share of the first sweep's gain that makes another one worth its time


def first_halves(
    magnitude: Tensor, n: int, m: int, search: Callable[[Tensor, Report], Tensor], report: Report
) -> Tensor:
    """The permutation [C] that `search` finds for the left and the right half by themselves."""
    split = magnitude.shape[1] // m // 2 * m
    left, right = magnitude[:, :split], magnitude[:, split:]
    right_kept = kept_sum(right, n, m)
    of_left = search(left, lambda done, kept: report(0.25 * done, kept + right_kept))
    left_kept = kept_sum(left[:, of_left], n, m)
    of_right = search(right, lambda done, kept: report(0.25 + 0.25 * done, left_kept + kept))
    return torch.cat([of_left, split + of_right])


def sweep_while_worth(pairs: StripePairs, report: Callable[[], None]) -> None:
    """Sweep until little is gained; the passes over all windows do the rest."""
    gains: list[float] = []
    while not gains or gains[-1] > WORTH * gains[0]:
        before = pairs.arrangement.kept
        sweep(pairs, report)
        gains.append(pairs.arrangement.kept - before)


def sweep(pairs: StripePairs, report: Callable[[], None]) -> None:
    """Hold every block of stripes against itself and every other once, improving as it goes."""
    arrangement = pairs.arrangement
    blocks = arrangement.everyone.split(BLOCK)
    for distance in range(len(blocks) // 2 + 1):
        for i, left in enumerate(blocks):
            j = (i + distance) % len(blocks)
            if 2 * distance == len(blocks) and i > j:
                continue  # it is its own counterpart
            improve_block(pairs, left, blocks[j])
            report()


def improve_block(pairs: StripePairs, left: Tensor, right: Tensor) -> None:
    """Do what improves among the windows of two blocks, or of one with itself."""
    arrangement = pairs.arrangement
    same = left is right
    members = left if same else torch.cat([left, right])
    place = torch.arange(len(members), device=members.device)
    first, second = place[: len(left)], place if same else place[len(left) :]
    block = pairs.block(left, right, first[:, None] >= second)
    ranking = Ranking(len(members), pairs.ranking.orders, arrangement.m)
    ranking.put((first, second), *pairs.score(block))
    improve(arrangement, ranking, pairs.threshold(), members)
