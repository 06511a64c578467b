"""The largest values of every subset of a stripe's columns, each made from a smaller subset by one insertion."""

from functools import cache
from itertools import combinations, pairwise
from math import comb

import torch
from torch import Tensor


@cache
def subsets(m: int, size: int) -> list[tuple[int, ...]]:
    """Subsets of 0 … m - 1 of this size by their last column, then the one before it, and so on.

    So those of 0 … j - 1 are the first of them, for every j.
    """
    return sorted(combinations(range(m), size), key=lambda subset: subset[::-1])


def largest(stripes: Tensor, n: int) -> list[Tensor]:
    """The `n` largest of each row of a stripe, in falling order: from [..., m, K] to n tensors [..., K]."""
    parts: list[Tensor] = []
    for values in stripes.unbind(-2):
        for i, part in enumerate(parts):
            parts[i], values = torch.maximum(part, values), torch.minimum(part, values)
        if len(parts) < n:
            parts.append(values)
    return parts


def largest_without(stripes: Tensor, n: int) -> list[Tensor]:
    """The `n` largest of a stripe without each of its columns in turn: from [G, m, K] to n < m tensors [m, G, K]."""
    ranked = largest(stripes, n + 1)
    columns = stripes.transpose(0, 1)
    return [torch.where(columns < above, above, below) for above, below in pairwise(ranked)]


def largest_of_subsets(stripes: Tensor, most: int, n: int) -> list[list[Tensor]]:
    """For sizes 1 … `most`, the min(n, size) largest of every subset of that many columns, in falling order.

    From stripes [G, m, K] to tensors [subsets, G, K]; those that end with column j are the subsets of the columns
    before it, with j inserted.
    """
    m = stripes.shape[1]
    columns = stripes.transpose(0, 1).contiguous()  # [m, G, K]
    found = [[columns]]
    for size in range(2, most + 1):
        smaller = found[-1]
        parts = [columns.new_empty(comb(m, size), *columns.shape[1:]) for _ in range(min(n, size))]
        for j in range(size - 1, m):
            first, last = comb(j, size), comb(j + 1, size)  # the subsets that end with column j
            insert([part[: comb(j, size - 1)] for part in smaller], columns[j], [part[first:last] for part in parts])
        found.append(parts)
    return found


def insert(smaller: list[Tensor], values: Tensor, out: list[Tensor]) -> None:
    """Write to `out` the largest, in falling order, of lists that are sorted already and one value more each."""
    for part, target in zip(smaller, out, strict=False):
        torch.maximum(part, values, out=target)
        values = torch.minimum(part, values)
    if len(out) > len(smaller):
        out[-1].copy_(values)
