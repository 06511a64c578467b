"""The largest values of every subset of columns, each made from a smaller subset by one insertion."""

from functools import cache
from itertools import combinations

import torch
from torch import Tensor


@cache
def subsets(m: int, size: int) -> list[tuple[int, ...]]:
    """Subsets of 0 … m-1 of this size, in lexicographic order."""
    return list(combinations(range(m), size))


def insert(sorted_parts: list[Tensor], values: Tensor, n: int) -> list[Tensor]:
    """The `n` largest, in falling order, of lists that are sorted already and one value more each."""
    if not sorted_parts:
        return [values]
    first, *rest = sorted_parts
    found = [torch.maximum(first, values)]
    carried = torch.minimum(first, values)
    for part in rest:
        found.append(torch.maximum(part, carried))
        carried = torch.minimum(part, carried)
    return found if len(sorted_parts) == n else [*found, carried]


def largest(stripes: Tensor, n: int) -> list[Tensor]:
    """The `n` largest of each row of a stripe, in falling order: from [..., m, K] to n tensors [..., K]."""
    parts: list[Tensor] = []
    for values in stripes.unbind(-2):
        parts = insert(parts, values, n)
    return parts


def largest_of_subsets(stripes: Tensor, size: int, n: int) -> list[Tensor]:
    """The min(n, size) largest of every subset of a stripe's columns: from [G, m, K] to tensors [subsets, G, K].

    A subset's values are those of the subset without its last column, and that column inserted.
    """
    m = stripes.shape[1]
    columns = stripes.transpose(0, 1)  # [m, G, K]
    parts: list[Tensor] = []
    for k in range(1, size + 1):
        last = [subset[-1] for subset in subsets(m, k)]
        if k > 1:
            place = {subset: i for i, subset in enumerate(subsets(m, k - 1))}
            prefix = [place[subset[:-1]] for subset in subsets(m, k)]
            parts = [part[prefix] for part in parts]
        parts = insert(parts, columns[last], n)
    return parts
