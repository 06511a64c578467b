"""Windows of `width` stripes scored over all their canonical permutations.

A window has few different stripes: C(2m, m) of two (70 for m = 4), C(3m, m) of three (495). What each keeps is summed
over the rows once, and a permutation's score is a sum of `width` entries of that table.
"""

from functools import cache

import torch
from torch import Tensor

from core.algorithms.permutation.canonical import canonical_permutations, count_canonical
from core.errors import SpecError

MOST_PERMUTATIONS = 10_000
IN_CACHE = 2**16  # elements of a buffer of scores


def check_window(m: int, width: int) -> None:
    """Raise SpecError if a window of `width` stripes of `m` has too many canonical permutations to try."""
    if width not in (2, 3):
        raise SpecError.of("width", width, "must be 2 or 3", "Choose one of them.")
    count = count_canonical(width * m, m)
    if count > MOST_PERMUTATIONS:
        pairs_work = count_canonical(2 * m, m) <= MOST_PERMUTATIONS
        message = f"gives windows of {width * m} columns for m = {m}, with {count:,} permutations to try "
        message += f"(at most {MOST_PERMUTATIONS:,})"
        remedy = "Choose width 2, or the strategy greedy_swap." if pairs_work else "Choose the strategy greedy_swap."
        raise SpecError.of("width", width, message, remedy)


@cache
def permutations_of(parts: tuple[tuple[int, ...], ...], m: int, width: int) -> tuple[Tensor, Tensor]:
    """Canonical permutations [count, w * m] and, for each of their stripes, its row among `parts`, [count, w].

    A stripe that stays whole stays in its place, so that a permutation moves nothing that it does not change.
    """
    row = {part: i for i, part in enumerate(parts)}
    orders, rows = [], []
    for permutation in canonical_permutations(width * m, m).tolist():
        stripes = in_place([tuple(permutation[s : s + m]) for s in range(0, width * m, m)], m)
        orders.append([column for stripe in stripes for column in stripe])
        rows.append([row[stripe] for stripe in stripes])
    return torch.tensor(orders), torch.tensor(rows)


def in_place(stripes: list[tuple[int, ...]], m: int) -> list[tuple[int, ...]]:
    """The same stripes, whole old ones at their old place."""
    whole = {stripe[0] // m: stripe for stripe in stripes if stripe[0] % m == 0 and stripe[-1] == stripe[0] + m - 1}
    others = iter([stripe for stripe in stripes if stripe not in whole.values()])
    return [whole[i] if i in whole else next(others) for i in range(len(stripes))]


def best_permutations(table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gain over the identity [...] and index [...] of each window's best permutation.

    `table` [parts, ...] holds what the windows' possible stripes keep; `rows` are those of `permutations_of`, the
    identity first: it is chosen among equals, its gain is 0.
    """
    flat = table.flatten(1)
    n_windows = flat.shape[1]
    step = max(IN_CACHE // n_windows, 1) if table.device.type == "cpu" else len(rows)
    identity = best = scores(flat, rows[:1])[0]
    choice = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, len(rows), step):
        top, index = scores(flat, rows[start : start + step]).max(dim=0)
        better = top > best
        best, choice = torch.where(better, top, best), torch.where(better, index + start, choice)
    return (best - identity).view(table.shape[1:]), choice.view(table.shape[1:])


def scores(table: Tensor, rows: Tensor) -> Tensor:
    """What windows keep under each permutation: from [parts, j] and [count, w] to [count, j]."""
    first, *others = rows.unbind(1)
    total = table[first]
    for column in others:
        total += table[column]
    return total
