"""Canonical permutations: one of each class that differs only within stripes or in the order of stripes.

Column 0 first, columns ascending within a stripe, and each new stripe opens with the smallest column not yet used
(Pool & Yu 2021, §4.1).
"""

import math
from functools import cache

import torch
from torch import Tensor


def count_canonical(n_columns: int, m: int) -> int:
    """C! / ((M!)^G G!) for G = C / M stripes."""
    n_stripes = n_columns // m
    return math.factorial(n_columns) // (math.factorial(m) ** n_stripes * math.factorial(n_stripes))


@cache
def canonical_permutations(n_columns: int, m: int) -> Tensor:
    """All of them in lexicographic order, int64 [count, C]; the first is the identity."""
    columns = torch.arange(n_columns)
    if n_columns == m:
        return columns[None]
    others = torch.combinations(columns[1:], m - 1) if m > 1 else columns.new_empty(1, 0)  # of the first stripe
    first = torch.cat([columns.new_zeros(len(others), 1), others], dim=1)  # [a, m]
    left = torch.ones(len(first), n_columns, dtype=torch.bool).scatter_(1, first, False)
    rest = columns.expand(len(first), -1)[left].view(len(first), -1)  # [a, C - m]
    tails = rest[:, canonical_permutations(n_columns - m, m)]  # [a, b, C - m]
    return torch.cat([first[:, None].expand(-1, tails.shape[1], -1), tails], dim=2).flatten(0, 1)
