"""Optimize stripe groups, OSG(w): the best canonical permutation of every window of w stripes.

Windows are visited by falling gain, those with a stripe that this pass has changed are left for the next, and only
windows with changed stripes are scored again (Pool & Yu 2021, §4.2). Ends when none improves.
"""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from core.permutation.arrangement import Arrangement
from core.permutation.ranking import Ranking, draw
from core.permutation.subsets import largest_of_subsets, subsets
from core.permutation.unions import union_sums
from core.permutation.windows import best_permutations, mixed, of_pair, permutations_of

LEAST_GAIN = 1e-4  # the reference's
TABLE = 2**24  # elements of a table of sums
LEFT = 32  # stripes that are held against all others at once


class StripeGroups:
    """The best permutation of every window of two or three stripes."""

    def __init__(self, arrangement: Arrangement, width: int):
        self.arrangement = arrangement
        self.width = width
        device = arrangement.columns.device
        orders, self.rows = (x.to(device) for x in permutations_of(arrangement.m, width))
        self.ranking = Ranking(arrangement.n_stripes, orders, arrangement.m)
        if width == 3:
            n_parts = len(swapped_halves(arrangement.m))
            self.pairs = arrangement.columns.new_empty(n_parts, arrangement.n_stripes, arrangement.n_stripes)

    def refresh(self, touched: Tensor, report: Callable[[], None]) -> None:
        """Score again every window with a stripe of `touched` [t]."""
        self.ranking.forget(touched)
        for stripes, table in self.pair_tables(touched) if self.width == 2 else self.triple_tables(touched):
            best, choices = best_permutations(table.flatten(1), self.rows)
            identity = sum(table[row] for row in self.rows[0].tolist())
            gains = best.view_as(identity) - identity
            if self.width == 2:
                left, right = stripes
                position = {stripe: i for i, stripe in enumerate(right.tolist())}
                for i, stripe in enumerate(left.tolist()):  # no stripe with itself, no pair twice
                    gains[i, : position.get(stripe, -1) + 1] = -torch.inf
            self.ranking.put(stripes, gains, choices.view_as(identity))
            report()

    def order(self, touched: Tensor) -> Tensor:
        """All stripes, the touched ones first."""
        everyone = torch.arange(self.arrangement.n_stripes, device=touched.device)
        return torch.cat([touched, everyone[~torch.isin(everyone, touched)]])

    def pair_tables(self, touched: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Stripes (left, right) and what the parts of their windows keep, [parts, left, right], block by block."""
        arrangement, order = self.arrangement, self.order(touched)
        stripes, sums = arrangement.stripes, arrangement.sums.float()
        n_parts = int(self.rows.max()) + 1
        for start in range(0, len(touched), LEFT):
            left = touched[start : start + LEFT]
            for right in order[start:].split(max(TABLE // (n_parts * len(left)), 1)):
                shape = (1, len(left), len(right))
                blocks = pair_blocks(stripes[left], stripes[right], arrangement.n)
                ends = sums[right].expand(shape), sums[left, None].expand(shape)
                yield (left, right), torch.cat([ends[0], *blocks, ends[1]])

    def triple_tables(self, touched: Tensor) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Stripes (first, second, third) and what the parts of their windows keep, for one second stripe at a time."""
        arrangement, order = self.arrangement, self.order(touched)
        stripes, sums, m, n = arrangement.stripes, arrangement.sums.float(), arrangement.m, arrangement.n
        self.refresh_pairs(touched)
        for place in range(1, len(order) - 1):
            first, second, third = order[: min(place, len(touched))], order[place], order[place + 1 :]
            shape = (-1, len(first), len(third))
            both = torch.cat([stripes[second].expand(len(third), -1, -1), stripes[third]], dim=1)  # [c, 2 * m, K]
            yield (
                (first, second[None], third),
                torch.cat([
                    sums[first, None].expand(1, *shape[1:]),
                    sums[second].expand(1, *shape[1:]),
                    sums[third].expand(1, *shape[1:]),
                    self.pairs[:, first, second][:, :, None].expand(shape),
                    self.pairs[:, first][:, :, third],
                    self.pairs[:, second, third][:, None].expand(shape),
                    *triple_blocks(stripes[first], both, n, m),
                ])[:, :, None],
            )  # fmt: skip

    def refresh_pairs(self, touched: Tensor) -> None:
        stripes = self.arrangement.stripes
        found = torch.cat(pair_blocks(stripes[touched], stripes, self.arrangement.n))  # [parts, t, G]
        self.pairs[:, touched] = found
        self.pairs[:, :, touched] = found[swapped_halves(self.arrangement.m)].transpose(1, 2)

    def threshold(self) -> float:
        """What a gain must exceed."""
        return LEAST_GAIN

    def escape(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Any window [1, w] in its best order, with an entry of the left half and one of the right half swapped."""
        window = self.ranking.random(generator)
        order = self.ranking.order_of(window).clone()
        half = order.shape[1] // 2
        i, j = draw(half, generator), half + draw(half, generator)
        order[0, [i, j]] = order[0, [j, i]]
        return window, order


@cache
def swapped_halves(m: int) -> list[int]:
    """Where the parts of a pair (left, right) stand in those of (right, left)."""
    parts = [part for k in range(1, m) for part in of_pair(m, k, 0, m)]
    row = {part: i for i, part in enumerate(parts)}
    return [row[tuple(sorted((c + m) % (2 * m) for c in part))] for part in parts]


def pair_blocks(left: Tensor, right: Tensor, n: int) -> list[Tensor]:
    """What mixed stripes of pairs keep, from stripes [a, m, K] and [b, m, K]: for k = 1 … m - 1 columns of the left

    and m - k of the right, a tensor [C(m, k) * C(m, m - k), a, b].
    """
    m = left.shape[1]
    return [product_sums(largest_of_subsets(left, k, n), largest_of_subsets(right, m - k, n), n) for k in range(1, m)]


def triple_blocks(first: Tensor, both: Tensor, n: int, m: int) -> list[Tensor]:
    """What stripes of three keep, from first stripes [a, m, K] and second and third together [c, 2 * m, K]: for

    k = 1 … m - 2 columns of the first, a tensor [C(m, k) * mixed, a, c].
    """
    blocks = []
    for k in range(1, m - 1):
        every = subsets(2 * m, m - k)
        wanted = set(mixed(m, m - k))
        chosen = [i for i, part in enumerate(every) if part in wanted]
        rest = [part[chosen] for part in largest_of_subsets(both, m - k, n)]
        blocks.append(product_sums(largest_of_subsets(first, k, n), rest, n))
    return blocks


def product_sums(left: list[Tensor], right: list[Tensor], n: int) -> Tensor:
    """`union_sums` of parts [i, a, K] and [j, b, K], as [i * j, a, b]."""
    i, a, _ = left[0].shape
    j, b, _ = right[0].shape
    sums = union_sums([part.flatten(0, 1) for part in left], [part.flatten(0, 1) for part in right], n)
    return sums.view(i, a, j, b).permute(0, 2, 1, 3).reshape(i * j, a, b)
