"""Windows of two stripes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.stripe_groups import StripeBlock, StripeGroups
from core.algorithms.permutation.subsets import largest_of_subsets, subsets
from core.algorithms.permutation.unions import union_sums

LEFT = 32  # stripes that are held against all others at once
TABLE = 2**23  # elements of a table of sums


class StripePairs(StripeGroups):
    """The best of the C(2m, m) / 2 permutations (35 for m = 4) of every two stripes."""

    def __init__(self, arrangement: Arrangement):
        m = arrangement.m
        self.parts = (tuple(range(m)), tuple(range(m, 2 * m)), *mixed_parts(m, 0, m))
        super().__init__(arrangement, self.parts, 2)

    def blocks(self, touched: Tensor) -> Iterator[StripeBlock]:
        """The first stripe is a touched one; the second any after it, with the touched ones before the others."""
        order = self.touched_first(touched)
        position = order.argsort()
        for start in range(0, len(touched), LEFT):
            left = touched[start : start + LEFT]
            for right in order[start:].split(max(TABLE // (len(self.parts) * len(left)), 1)):
                yield self.block(left, right, position[right] <= position[left, None])

    def block(self, left: Tensor, right: Tensor, repeated: Tensor | None = None) -> StripeBlock:
        """The windows of stripes `left` [a] and `right` [b]."""
        stripes, sums = self.arrangement.stripes, self.arrangement.sums.float()
        shape = (1, len(left), len(right))
        mixed = mixed_sums(stripes[left], stripes[right], self.arrangement.n)
        table = torch.cat([sums[left, None].expand(shape), sums[right].expand(shape), mixed])
        return StripeBlock((left, right), table, repeated)


def mixed_parts(m: int, first: int, second: int) -> list[tuple[int, ...]]:
    """Stripes with columns of both the stripe that begins at column `first` and that at `second`."""
    return [
        tuple(first + c for c in a) + tuple(second + c for c in b)
        for k in range(1, m)
        for a in subsets(m, k)
        for b in subsets(m, m - k)
    ]


def mixed_sums(left: Tensor, right: Tensor, n: int) -> Tensor:
    """What the stripes `mixed_parts` of all pairs keep: from stripes [a, m, K] and [b, m, K] to [parts, a, b]."""
    m = left.shape[1]
    of_left, of_right = largest_of_subsets(left, m - 1, n), largest_of_subsets(right, m - 1, n)
    return torch.cat([union_sums(of_left[k - 1], of_right[m - k - 1], n) for k in range(1, m)])
