"""N kept weights in every M consecutive inputs, as one number for each group.

The number is the rank of the group's pattern among the C(M, N) possible ones in the combinatorial number system
(Lehmer, https://en.wikipedia.org/wiki/Combinatorial_number_system). It takes ceil(log2 C(M, N)) bits: 3 for 2:4, where
two plain indices take 4.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from core.nn.bitpack import pack_bits, packed_length, unpack_bits

MAX_M = 32  # C(32, 16) still fits 30 bits
_MAX_TABLED_M = 16


def pattern_bits(n: int, m: int) -> int:
    """The bits of a number that identifies one of the C(m, n) patterns of a group."""
    return (math.comb(m, n) - 1).bit_length()


@dataclass(frozen=True)
class NM:
    """At most `n` of every `m` consecutive columns are kept; groups with fewer are filled up with pruned ones."""

    rows: int
    columns: int
    n: int
    m: int

    @property
    def n_values(self) -> int:
        return self._n_groups * self.n

    @property
    def n_bytes(self) -> int:
        return packed_length(self._n_groups, pattern_bits(self.n, self.m))

    @property
    def _n_groups(self) -> int:
        return self.rows * self.columns // self.m

    def arguments(self) -> dict[str, Any]:
        return {"layout": "nm", "n": self.n, "m": self.m}

    def fill(self, mask: Tensor) -> Tensor:
        lacking = self.n - kept_in_groups(mask, self.m).long()  # [n_groups]
        if not lacking.any():
            return mask
        groups = mask.reshape(-1, self.m)
        spare = (~groups).cumsum(1) <= lacking[:, None]  # as many of the first pruned ones as are missing
        return (groups | spare).view_as(mask)

    def encode(self, mask: Tensor) -> Tensor:
        groups = mask.reshape(-1, self.m)
        ranks = _ranks(self.n, self.m).to(mask.device)[_as_numbers(groups)] if self.m <= _MAX_TABLED_M else rank(groups)
        return pack_bits(ranks, pattern_bits(self.n, self.m))

    def decode(self, packed: Tensor) -> Tensor:
        ranks = unpack_bits(packed, pattern_bits(self.n, self.m), self._n_groups)
        if self.m <= _MAX_TABLED_M:
            groups = _patterns(self.n, self.m).to(packed.device)[ranks.long()]
        else:
            groups = unrank(ranks, self.n, self.m)
        return groups.view(self.rows, self.columns)


def rank(groups: Tensor) -> Tensor:
    """The rank of each pattern [n_groups, m] of equally many kept weights: the sum of C(position, kept up to it)."""
    m = groups.shape[1]
    binomials = _binomials(m).to(groups.device)
    counts = groups.cumsum(1)  # [n_groups, m]
    places = torch.arange(m, device=groups.device)
    return (binomials[places, counts] * groups).sum(1)


def unrank(ranks: Tensor, n: int, m: int) -> Tensor:
    """The patterns [n_groups, m] of these ranks: repeatedly the largest position whose binomial fits."""
    binomials = _binomials(m).to(ranks.device)
    left = ranks.long()
    wanted = torch.full_like(left, n)
    groups = torch.empty(len(ranks), m, dtype=torch.bool, device=ranks.device)
    for place in reversed(range(m)):
        below = binomials[place, wanted]
        kept = (below <= left) & (wanted > 0)
        left = left - below * kept
        wanted = wanted - kept.long()
        groups[:, place] = kept
    return groups


@cache
def _binomials(m: int) -> Tensor:
    """C(i, j) for i in 0..m-1 and j in 0..m."""
    return torch.tensor([[math.comb(i, j) for j in range(m + 1)] for i in range(m)])


@cache
def _patterns(n: int, m: int) -> Tensor:
    """All patterns [C(m, n), m] in the order of their ranks."""
    return unrank(torch.arange(math.comb(m, n)), n, m)


@cache
def _ranks(n: int, m: int) -> Tensor:
    """The rank of each pattern, indexed by the number formed by its bits; 0 for other bit patterns."""
    patterns = _patterns(n, m)
    ranks = torch.zeros(1 << m, dtype=torch.int32)
    ranks[_as_numbers(patterns)] = torch.arange(len(patterns), dtype=torch.int32)
    return ranks


def _as_numbers(groups: Tensor) -> Tensor:
    """Patterns [n_groups, m] as numbers; the first position is the lowest bit."""
    numbers = torch.zeros(len(groups), dtype=torch.int64, device=groups.device)
    for place in range(groups.shape[1]):
        numbers |= groups[:, place].long() << place
    return numbers


def kept_in_groups(mask: Tensor, m: int) -> Tensor:
    """The number of kept weights in every m consecutive columns, uint8 [n_groups]; several times faster than sum."""
    groups = mask.reshape(-1, m)
    counts = torch.zeros(len(groups), dtype=torch.uint8, device=mask.device)
    for place in range(m):
        counts += groups[:, place]
    return counts
