"""Windows of `width` stripes scored over all their canonical permutations.

A window has few different stripes: C(2m, m) of two (70 for m = 4), C(3m, m) of three (495). What each keeps is summed
over the rows once, and a permutation's score is a sum of `width` entries of that table.
"""

from functools import cache

import torch
from torch import Tensor

from core.errors import SpecError
from core.permutation.canonical import canonical_permutations, count_canonical
from core.permutation.subsets import subsets

MOST_PERMUTATIONS = 10_000
LOOKED_UP = 2**18  # elements of a buffer of scores that stays in the caches


def check_window(m: int, width: int) -> None:
    """Raise SpecError where a window of `width` stripes of `m` has too many canonical permutations to try."""
    count = count_canonical(width * m, m)
    if count > MOST_PERMUTATIONS:
        message = f"makes windows of {width * m} columns for m = {m}, with {count:,} permutations (at most "
        message += f"{MOST_PERMUTATIONS:,} are tried)"
        remedy = "Choose the strategy greedy_swap" + (", or width 2." if width > 2 else ".")
        if width > 2 and count_canonical(2 * m, m) > MOST_PERMUTATIONS:
            remedy = "Choose the strategy greedy_swap."
        raise SpecError.of("width", width, message, remedy)


def parts_of(m: int, width: int) -> list[list[tuple[int, ...]]]:
    """The stripes a window can hold, as sorted columns, in the blocks in which the table is made.

    Two stripes: for k = 0 … m those with k columns of the first and m - k of the second. Three: the three stripes
    themselves; those of each two (0 1, 0 2, 1 2) with k = 1 … m - 1; then those of all three, with k = 1 … m - 2
    columns of the first and the rest as `mixed` orders it.
    """
    if width == 2:
        return [of_pair(m, k, 0, m) for k in range(m + 1)]
    blocks = [[tuple(range(s * m, s * m + m))] for s in range(3)]
    for first, second in ((0, m), (0, 2 * m), (m, 2 * m)):
        blocks += [of_pair(m, k, first, second) for k in range(1, m)]
    for k in range(1, m - 1):
        rest = [tuple(c + m for c in part) for part in mixed(m, m - k)]
        blocks.append([a + b for a in subsets(m, k) for b in rest])
    return blocks


def of_pair(m: int, k: int, first: int, second: int) -> list[tuple[int, ...]]:
    """Stripes with `k` columns from the stripe that begins at `first`, m - k from that at `second`."""
    return [
        tuple(first + c for c in a) + tuple(second + c for c in b) for a in subsets(m, k) for b in subsets(m, m - k)
    ]


def mixed(m: int, size: int) -> list[tuple[int, ...]]:
    """Subsets of two stripes with columns of both."""
    return [part for part in subsets(2 * m, size) if part[0] < m <= part[-1]]


@cache
def permutations_of(m: int, width: int) -> tuple[Tensor, Tensor]:
    """Canonical permutations [count, w * m] and, for each of their stripes, its row of the table [count, w].

    A stripe that stays whole stays in its place, so that a window's untouched stripes are not moved.
    """
    row = {part: i for i, part in enumerate(part for block in parts_of(m, width) for part in block)}
    orders, rows = [], []
    for permutation in canonical_permutations(width * m, m).tolist():
        stripes = in_place([tuple(permutation[s : s + m]) for s in range(0, width * m, m)], m)
        orders.append([c for stripe in stripes for c in stripe])
        rows.append([row[stripe] for stripe in stripes])
    return torch.tensor(orders), torch.tensor(rows)


def in_place(stripes: list[tuple[int, ...]], m: int) -> list[tuple[int, ...]]:
    """The same stripes, whole old ones at their old place."""
    whole = {stripe[0] // m: stripe for stripe in stripes if stripe[0] % m == 0 and stripe[-1] == stripe[0] + m - 1}
    others = iter([stripe for stripe in stripes if stripe not in whole.values()])
    return [whole[i] if i in whole else next(others) for i in range(len(stripes))]


def best_permutations(table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of windows whose stripes keep `table` [parts, j], the best permutation's sum [j] and its index [j].

    `rows` [count, w] are those of `permutations_of`, the identity first: it is chosen among equals.
    """
    n_windows = table.shape[1]
    step = max(LOOKED_UP // n_windows, 1) if table.device.type == "cpu" else len(rows)
    best, choice = table.new_full((n_windows,), -torch.inf), torch.zeros_like(table[0], dtype=torch.int64)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        scores = table[some[:, 0]]
        for column in some.unbind(1)[1:]:
            scores += table[column]
        top, index = scores.max(dim=0)
        better = top > best
        best, choice = torch.where(better, top, best), torch.where(better, index + start, choice)
    return best, choice
