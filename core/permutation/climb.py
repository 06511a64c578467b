"""Climb to where no move improves, then escape by bounded regressions: BR(n) of Pool & Yu 2021, §4.3.

A regression is one random move, taken though it loses; the climb then goes on from there. After the last, the best
arrangement of all is the answer (the reference returns the last one).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from core.permutation.arrangement import Arrangement
from core.permutation.ranking import Ranking


class Moves(Protocol):
    """What a strategy can do to windows of stripes."""

    arrangement: Arrangement
    ranking: Ranking

    def refresh(self, touched: Tensor, report: Callable[[], None]) -> None: ...
    def threshold(self) -> float: ...
    def escape(self, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


def climb(moves: Moves, escapes: int, generator: torch.Generator, report: Callable[[float], None]) -> Tensor:
    """The best permutation [C] that is found; `report` is told the share of the work that is done."""
    arrangement = moves.arrangement
    touched = torch.arange(arrangement.n_stripes, device=arrangement.columns.device)
    best, best_kept, escaped, first_gain = arrangement.permutation.clone(), arrangement.kept, 0, 0.0
    done = 0.0
    while True:
        moves.refresh(touched, lambda: report(done))
        first_gain = first_gain or moves.ranking.best
        touched = improve(moves)
        if escaped == 0 and first_gain > 0:
            done = max(done, 0.5 * (1 - max(moves.ranking.best, 0.0) / first_gain))
        if arrangement.kept > best_kept:
            best, best_kept = arrangement.permutation.clone(), arrangement.kept
        if len(touched) == 0:
            if escaped == escapes:
                return best
            window, order = moves.escape(generator)
            touched = arrangement.apply(window, order)
            escaped += 1
            done = 0.5 + 0.5 * escaped / escapes
        report(done)


def improve(moves: Moves) -> Tensor:
    """One pass: do what improves, the largest gains first, and return the stripes that changed [t]."""
    arrangement, ranking = moves.arrangement, moves.ranking
    threshold = max(moves.threshold(), arrangement.noise(ranking.width))
    while True:
        windows = ranking.compatible(threshold)
        if len(windows) == 0:
            return windows.flatten()
        orders = ranking.order_of(windows)
        gains = arrangement.gains(windows, orders)
        ranking.set_gains(windows, gains)
        good = gains > threshold
        if good.any():
            return arrangement.apply(windows[good], orders[good])
