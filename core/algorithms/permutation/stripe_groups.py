"""Optimize stripe groups, OSG(w): the best canonical permutation of every window of w stripes.

Windows are visited by falling gain, those with a stripe that this pass has changed are left for the next, and only
windows with changed stripes are scored again. Ends when none improves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.ranking import Ranking, draw
from core.algorithms.permutation.windows import best_permutations, permutations_of

LEAST_GAIN = 1e-4  # the reference's


@dataclass(frozen=True)
class StripeBlock:
    """Windows of a product of stripes, [*product]."""

    stripes: tuple[Tensor, ...]  # a vector for each place in the window
    table: Tensor  # [parts, *product], what the windows' possible stripes keep
    repeated: Tensor | None = None  # [*product], True if no window is, or one that stands elsewhere too


class StripeGroups(ABC):
    """The best permutation of every window of `width` stripes; `parts` names the rows of the tables."""

    def __init__(self, arrangement: Arrangement, parts: tuple[tuple[int, ...], ...], width: int):
        self.arrangement = arrangement
        device = arrangement.columns.device
        orders, rows = permutations_of(parts, arrangement.m, width)
        self.rows = rows.to(device)
        self.ranking = Ranking(arrangement.n_stripes, orders.to(device), arrangement.m)

    @abstractmethod
    def blocks(self, touched: Tensor) -> Iterator[StripeBlock]:
        """All windows with a stripe of `touched` [t]."""

    def refresh(self, touched: Tensor, report: Callable[[], None]) -> None:
        """Score again every window with a stripe of `touched` [t]."""
        self.ranking.forget(touched)
        for block in self.blocks(touched):
            self.ranking.put(block.stripes, *self.score(block))
            report()

    def score(self, block: StripeBlock) -> tuple[Tensor, Tensor]:
        """Gain and choice of each window's best permutation, [*product]."""
        gains, choices = best_permutations(block.table, self.rows)
        return gains if block.repeated is None else gains.masked_fill(block.repeated, -torch.inf), choices

    def threshold(self) -> float:
        """What a gain must exceed."""
        return LEAST_GAIN

    def escape(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Any window [1, w] in its best order, with an entry of the left half and one of the right half swapped."""
        window = self.ranking.random(generator)
        order = self.ranking.orders[self.ranking.choice(window)]
        half = order.shape[1] // 2
        i, j = draw(half, generator), half + draw(half, generator)
        order[0, [i, j]] = order[0, [j, i]]
        return window, order

    def touched_first(self, touched: Tensor) -> Tensor:
        """All stripes, those of `touched` before the others."""
        everyone = self.arrangement.everyone
        return torch.cat([touched, everyone[~torch.isin(everyone, touched)]])
