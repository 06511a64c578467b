"""Climb to where no move improves, then escape by bounded regressions: BR(n) of Pool & Yu.

A regression is one random move, taken though it loses; the climb then goes on from there. Two things are ours. The
first pass after a regression leaves out the windows that could undo it, which mostly they would. And the best
arrangement of all is the answer (the reference returns the last one).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.ranking import Ranking

Report = Callable[[float, float], None]  # the share of the work that is done, and S now


class Moves(Protocol):
    """What a strategy can do to windows of stripes."""

    arrangement: Arrangement
    ranking: Ranking

    def refresh(self, touched: Tensor, report: Callable[[], None]) -> None: ...
    def threshold(self) -> float: ...
    def escape(self, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


def climb_hill(moves: Moves, escapes: int, generator: torch.Generator, report: Report) -> Tensor:
    """The best permutation [C] that is found."""
    arrangement = moves.arrangement
    best, best_kept = arrangement.permutation.clone(), arrangement.kept
    for escaped in range(escapes + 1):
        share = Share(report, arrangement, escaped, escapes)
        changed = regress(moves, generator, share) if escaped else arrangement.everyone
        while len(changed):
            moves.refresh(changed, share.tell)
            share.advance(moves.ranking.best)
            changed = improve(arrangement, moves.ranking, moves.threshold(), arrangement.everyone)
            share.tell()
        if arrangement.kept > best_kept:
            best, best_kept = arrangement.permutation.clone(), arrangement.kept
    return best


def regress(moves: Moves, generator: torch.Generator, share: "Share") -> Tensor:
    """A random move and one pass that cannot undo it; the stripes [t] whose windows are to be looked at again."""
    arrangement, ranking = moves.arrangement, moves.ranking
    changed = arrangement.apply(*moves.escape(generator))
    if len(changed) == 0:
        return changed  # two columns of one stripe
    moves.refresh(changed, share.tell)
    ranking.forbid(changed)
    improved = improve(arrangement, ranking, moves.threshold(), arrangement.everyone)
    return improved if len(improved) else changed


def improve(arrangement: Arrangement, ranking: Ranking, threshold: float, members: Tensor) -> Tensor:
    """One pass: do what improves, the largest gains first, and return the stripes that changed [t].

    The ranking is of the stripes `members`; its gains, in float32, are believed only as far as they are exact.
    """
    threshold = max(threshold, arrangement.noise(ranking.width))
    while True:
        windows = ranking.compatible(threshold)
        if len(windows) == 0:
            return windows.flatten()
        orders = ranking.orders[ranking.choice(windows)]
        gains = arrangement.gains(members[windows], orders)
        ranking.set_gains(windows, gains)
        good = gains > threshold
        if good.any():
            return arrangement.apply(members[windows[good]], orders[good])


class Share:
    """How far a climb has come: the first makes half of the whole, those after regressions the other half."""

    def __init__(self, report: Report, arrangement: Arrangement, escaped: int, escapes: int):
        self.report, self.arrangement = report, arrangement
        first = 0.5 if escapes else 1.0
        self.start = first + (1 - first) * (escaped - 1) / escapes if escaped else 0.0
        self.length = (1 - first) / escapes if escaped else first
        self.first_gain = self.done = 0.0

    def advance(self, gain: float) -> None:
        """Update the progress from the best remaining gain relative to the first one."""
        self.first_gain = max(self.first_gain, gain)
        if self.first_gain > 0:
            self.done = max(self.done, 1 - max(gain, 0.0) / self.first_gain)

    def tell(self) -> None:
        """Report, also within a pass, so that the caller can stop there."""
        self.report(self.start + self.length * self.done, self.arrangement.kept)
