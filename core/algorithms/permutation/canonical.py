"""Canonical permutations: one of each class that differs only within stripes or in the order of stripes.

Column 0 first, columns ascending within a stripe, and each new stripe opens with the smallest column not yet used
(Pool & Yu).
"""

import math
from functools import cache
from itertools import combinations

import torch
from torch import Tensor


def count_canonical(n_columns: int, m: int) -> int:
    """C! / ((M!)^G G!) for G = C / M stripes."""
    n_stripes = n_columns // m
    return math.factorial(n_columns) // (math.factorial(m) ** n_stripes * math.factorial(n_stripes))


@cache
def canonical_permutations(n_columns: int, m: int) -> Tensor:
    """All of them in lexicographic order, uint8 [count, C]; the first is the identity."""
    if n_columns == m:
        return torch.arange(m, dtype=torch.uint8)[None]
    tails = canonical_permutations(n_columns - m, m).long()
    found = []
    for others in combinations(range(1, n_columns), m - 1):  # that share the first stripe with column 0
        rest = [column for column in range(1, n_columns) if column not in others]
        first = torch.tensor((0, *others), dtype=torch.uint8).expand(len(tails), -1)
        found.append(torch.cat([first, torch.tensor(rest, dtype=torch.uint8)[tails]], dim=1))
    return torch.cat(found)
