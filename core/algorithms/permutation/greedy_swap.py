"""Greedy swaps of two columns (after TETRIS), as Pool & Yu's reference walks them.

All swaps across stripes are ranked by their gain; each is done whose two stripes this pass has not touched, until the
gain falls below a threshold. Only the gains of touched stripes are computed again. Ends when a pass does nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.ranking import Ranking, draw
from core.algorithms.permutation.subsets import largest_without
from core.algorithms.permutation.unions import union_sums

SHARE_OF_BEST, LEAST, MOST = 1e-5, 1e-4, 1.0  # the threshold: a share of the best gain, between two bounds


class GreedySwap:
    """The best swap of every pair of stripes: only that one can be done before both are touched."""

    def __init__(self, arrangement: Arrangement):
        self.arrangement = arrangement
        columns, m = arrangement.columns, arrangement.m
        self.exchanged = columns.new_zeros(len(columns), len(columns))  # [i, j]: kept by i's stripe with j for i
        self.ranking = Ranking(arrangement.n_stripes, swaps(m).to(columns.device), m)

    def refresh(self, touched: Tensor, report: Callable[[], None]) -> None:
        """Compute again the swaps of `touched` stripes [t]."""
        arrangement = self.arrangement
        everyone = arrangement.everyone
        places = arrangement.places(touched[:, None]).flatten()
        self.exchanged[places] = exchanged(arrangement, touched, arrangement.columns)
        report()
        self.exchanged[:, places] = exchanged(arrangement, everyone, arrangement.columns[places])
        both = self.exchanged[places] + self.exchanged[:, places].t()  # [t * m, C]
        by_pair = both.view(len(touched), arrangement.m, -1, arrangement.m).permute(0, 2, 1, 3).flatten(2)
        kept, choices = by_pair.max(dim=2)  # of [t, G, m * m]
        gains = kept - (arrangement.sums[touched, None] + arrangement.sums).float()
        twice = torch.isin(everyone, touched) & (everyone <= touched[:, None])  # the stripe itself, or the other's row
        self.ranking.forget(touched)
        self.ranking.put((touched, everyone), gains.masked_fill(twice, -torch.inf), choices)

    def threshold(self) -> float:
        """Where this pass stops."""
        return min(max(SHARE_OF_BEST * self.ranking.best, LEAST), MOST)

    def escape(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Any swap: a window [1, 2] and its order [1, 2 * m]."""
        orders = self.ranking.orders
        return self.ranking.random(generator), orders[draw(len(orders), generator)][None]


def exchanged(arrangement: Arrangement, stripes: Tensor, columns: Tensor) -> Tensor:
    """What each of `stripes` [t] keeps with one of its columns replaced by one of `columns` [c, K]: [t * m, c]."""
    rests = largest_without(arrangement.stripes[stripes], arrangement.n)  # [m, t, K]
    return union_sums(rests, [columns[None]], arrangement.n).transpose(0, 1).flatten(0, 1)


def swaps(m: int) -> Tensor:
    """Orders of two stripes with column i of the first and j of the second swapped: [m * m, 2 * m], row i * m + j."""
    orders = torch.arange(2 * m).repeat(m * m, 1)
    row = torch.arange(m * m)
    i, j = row // m, m + row % m
    orders[row, i], orders[row, j] = j, i
    return orders
