"""Windows of three stripes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.stripe_groups import StripeBlock, StripeGroups
from core.algorithms.permutation.stripe_pairs import mixed_parts, mixed_sums
from core.algorithms.permutation.subsets import largest_of_subsets, subsets
from core.algorithms.permutation.unions import union_sums


class StripeTriples(StripeGroups):
    """The best of all permutations (5,775 for m = 4) of every three stripes.

    What a stripe with columns of only two keeps is computed for each pair once, [parts, G, G].
    """

    def __init__(self, arrangement: Arrangement):
        m, n_stripes = arrangement.m, arrangement.n_stripes
        whole = [tuple(range(s, s + m)) for s in (0, m, 2 * m)]
        of_two = mixed_parts(m, 0, m), mixed_parts(m, 0, 2 * m), mixed_parts(m, m, 2 * m)
        parts = (*whole, *of_two[0], *of_two[1], *of_two[2], *parts_of_three(m))
        super().__init__(arrangement, parts, 3)
        self.pairs = arrangement.columns.new_empty(len(of_two[0]), n_stripes, n_stripes)
        self.exchanged = exchanged_halves(m)

    def blocks(self, touched: Tensor) -> Iterator[StripeBlock]:
        """The first stripe is a touched one, the touched ones come before the others; one second stripe at a time."""
        self.refresh_pairs(touched)
        order = self.touched_first(touched)
        for place in range(1, len(order) - 1):
            yield self.block(order[: min(place, len(touched))], order[place], order[place + 1 :])

    def refresh_pairs(self, touched: Tensor) -> None:
        stripes = self.arrangement.stripes
        found = mixed_sums(stripes[touched], stripes, self.arrangement.n)  # [parts, t, G]
        self.pairs[:, touched] = found
        self.pairs[:, :, touched] = found[self.exchanged].transpose(1, 2)

    def block(self, first: Tensor, second: Tensor, third: Tensor) -> StripeBlock:
        """The windows of stripes `first` [a], one `second` and `third` [c]: a product [a, 1, c]."""
        stripes, sums, pairs = self.arrangement.stripes, self.arrangement.sums.float(), self.pairs
        shape = len(first), len(third)
        both = torch.cat([stripes[second].expand(len(third), -1, -1), stripes[third]], dim=1)  # [c, 2 * m, K]
        table = torch.cat(
            [
                sums[first, None].expand(1, *shape),
                sums[second].expand(1, *shape),
                sums[third].expand(1, *shape),
                pairs[:, first, second, None].expand(-1, *shape),
                pairs[:, first][:, :, third],
                pairs[:, second, None, third].expand(-1, *shape),
                sums_of_three(stripes[first], both, self.arrangement.n),
            ]
        )
        return StripeBlock((first, second[None], third), table[:, :, None])


def exchanged_halves(m: int) -> list[int]:
    """For the parts of (left, right), where they stand among those of (right, left)."""
    parts = mixed_parts(m, 0, m)
    row = {part: i for i, part in enumerate(parts)}
    return [row[tuple(sorted((column + m) % (2 * m) for column in part))] for part in parts]


def mixed(m: int, size: int) -> list[int]:
    """Which `subsets` of two stripes together have columns of both."""
    return [i for i, part in enumerate(subsets(2 * m, size)) if part[0] < m <= part[-1]]


def parts_of_three(m: int) -> list[tuple[int, ...]]:
    """Stripes with columns of all three: k of the first, the others mixed from the second and third."""
    return [
        a + tuple(m + column for column in subsets(2 * m, m - k)[i])
        for k in range(1, m - 1)
        for a in subsets(m, k)
        for i in mixed(m, m - k)
    ]


def sums_of_three(first: Tensor, both: Tensor, n: int) -> Tensor:
    """What `parts_of_three` keep: from stripes [a, m, K] and pairs of stripes [c, 2 * m, K] to [parts, a, c]."""
    m = first.shape[1]
    if m < 3:
        return first.new_empty(0, len(first), len(both))
    of_first, of_both = largest_of_subsets(first, m - 2, n), largest_of_subsets(both, m - 1, n)
    found = []
    for k in range(1, m - 1):
        rest = [part[mixed(m, m - k)] for part in of_both[m - k - 1]]
        found.append(union_sums(of_first[k - 1], rest, n))
    return torch.cat(found)
