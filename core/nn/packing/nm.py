"""N kept weights in every M consecutive inputs, as one number a group.

A group's pattern is its rank among the C(M, N) possible ones in the combinatorial number system (Lehmer,
https://en.wikipedia.org/wiki/Combinatorial_number_system), in ceil(log2 C(M, N)) bits: 3 for 2:4, where two
plain indices take 4.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from core.nn.bitpack import pack_bits, packed_length, unpack_bits

MAX_M = 32  # C(32, 16) still fits 30 bits
_MAX_TABLE = 1 << 16


def pattern_bits(n: int, m: int) -> int:
    """Bits that tell the C(m, n) patterns of a group apart."""
    return (math.comb(m, n) - 1).bit_length()


@dataclass(frozen=True)
class NM:
    """At most `n` of every `m` consecutive columns are kept; groups with fewer are filled up with their first."""

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
        groups = mask.reshape(-1, self.m)
        spare = (~groups).cumsum(1) <= self.n - groups.sum(1, keepdim=True)  # the first pruned ones, as many as lack
        return (groups | spare).view_as(mask)

    def encode(self, mask: Tensor) -> Tensor:
        return pack_bits(rank(mask.reshape(-1, self.m)), pattern_bits(self.n, self.m))

    def decode(self, packed: Tensor) -> Tensor:
        ranks = unpack_bits(packed, pattern_bits(self.n, self.m), self._n_groups)
        if math.comb(self.m, self.n) <= _MAX_TABLE:
            groups = _table(self.n, self.m).to(packed.device)[ranks.long()]
        else:
            groups = unrank(ranks, self.n, self.m)
        return groups.view(self.rows, self.columns)


def rank(groups: Tensor) -> Tensor:
    """Rank of each pattern [n_groups, m] of equally many kept weights: sum of C(place, how many up to it)."""
    m = groups.shape[1]
    binomials = _binomials(m).to(groups.device)
    counts = groups.cumsum(1)  # [n_groups, m]
    places = torch.arange(m, device=groups.device)
    return (binomials[places, counts] * groups).sum(1)


def unrank(ranks: Tensor, n: int, m: int) -> Tensor:
    """The patterns [n_groups, m] of these ranks: the largest place whose binomial fits, again and again."""
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
def _table(n: int, m: int) -> Tensor:
    return unrank(torch.arange(math.comb(m, n)), n, m)
