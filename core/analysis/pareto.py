"""The Pareto frontier: points that no other point dominates. Loads no torch.

Points are rows [n_points, n_axes], and `directions` gives "min" or "max" for each axis. Equal
points do not dominate each other. A point with a missing value (NaN) is never on the frontier.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["min", "max"]
CHUNK = 512  # points compared with the frontier at once, on four axes and more
ARCHIVE_CHUNK = 4096  # of the frontier; bounds the memory of a comparison to a few megabytes an axis


def find_frontier(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Mask [n_points] of the points on the frontier.

    O(N log N) for two axes, O(N log² N) for three, O(N times the size of the frontier) for more. Raises ValueError if
    points and directions do not match.
    """
    costs = _costs(points, directions)
    whole = ~np.isnan(costs).any(axis=1)
    on_frontier = np.zeros(len(costs), dtype=bool)
    if whole.any():
        # Ranks keep the order and the ties of each axis, and have no infinities to subtract.
        ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in costs[whole].T], axis=1)
        order = np.lexsort(ranks.T[::-1])  # by the first axis, then the next
        ranks = ranks[order]
        is_new = np.ones(len(ranks), dtype=bool)
        is_new[1:] = (ranks[1:] != ranks[:-1]).any(axis=1)
        best = {1: _best_of_1, 2: _best_of_2, 3: _best_of_3}.get(len(directions), _best_of_many)
        on_frontier[np.flatnonzero(whole)[order]] = best(ranks[is_new])[np.cumsum(is_new) - 1]
    return on_frontier


def dominated(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Mask [n_points] of the points that are not on the frontier."""
    return ~find_frontier(points, directions)


def compute_hypervolume(points: ArrayLike, directions: Sequence[Direction], reference: ArrayLike) -> float:
    """Area or volume dominated by the points, up to a worse `reference` point [2 or 3].

    Points that are not better than the reference on every axis add nothing. Raises ValueError on other numbers of axes.
    """
    if len(directions) not in (2, 3):
        raise ValueError(f"hypervolume supports 2 or 3 axes, not {len(directions)}")
    costs = _costs(points, directions)
    limit = _costs(np.asarray(reference, dtype=float).reshape(1, -1), directions)[0]
    costs = costs[(costs < limit).all(axis=1)]
    costs = costs[find_frontier(costs, ["min"] * costs.shape[1])]
    if len(directions) == 2:
        costs = np.column_stack([costs, np.zeros(len(costs))])
        limit = np.append(limit, 1.0)
    return _volume(costs[np.argsort(costs[:, 2], kind="stable")], limit)


def compute_hypervolume_steps(
    points: ArrayLike, directions: Sequence[Direction], reference: ArrayLike
) -> list[tuple[int, float]]:
    """(index, area from then on) of each point [N, 2] that adds to the hypervolume when they come one by one.

    N log N. Points that miss a value (NaN) add nothing. Raises ValueError on other numbers of axes than two.
    """
    if len(directions) != 2:
        raise ValueError(f"steps of the hypervolume support 2 axes, not {len(directions)}")
    costs = _costs(points, directions)
    limit = _costs(np.asarray(reference, dtype=float).reshape(1, -1), directions)[0]
    xs, ys = [-np.inf, float(limit[0])], [float(limit[1]), -np.inf]
    found, area = [], 0.0
    for index in np.flatnonzero((costs < limit).all(axis=1)).tolist():
        added = _add_step(xs, ys, *costs[index].tolist())
        if added:
            area += added
            found.append((index, area))
    return found


def find_knee(points: ArrayLike, directions: Sequence[Direction]) -> int | None:
    """Index of the frontier's point that bulges most beyond the plane through its extremes, axes scaled to 0..1.

    None if the frontier has no bulge: fewer than three points, or none beyond the plane.
    """
    costs = _costs(points, directions)
    indices = np.flatnonzero(find_frontier(points, directions) & np.isfinite(costs).all(axis=1))
    if len(indices) < 3:
        return None
    best = costs[indices]
    span = np.ptp(best, axis=0)
    scaled = (best - best.min(axis=0)) / np.where(span > 0, span, 1.0)
    distance = 1 - scaled.sum(axis=1)  # on two axes: to the chord from (0, 1) to (1, 0)
    chosen = int(distance.argmax())
    return int(indices[chosen]) if distance[chosen] > 1e-12 else None


def _costs(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """Points as floats [n_points, n_axes] where less is better."""
    costs = np.array(points, dtype=float)
    if costs.size == 0:
        costs = costs.reshape(0, len(directions))
    if costs.ndim != 2 or costs.shape[1] != len(directions) or not directions:
        raise ValueError(f"points of shape {costs.shape} do not have {len(directions)} axes")
    if not set(directions) <= {"min", "max"}:
        raise ValueError(f"directions are 'min' or 'max', not {list(directions)}")
    costs[:, [direction == "max" for direction in directions]] *= -1
    return costs


# The following take distinct rows of ranks in lexicographic order: a point can be shut out by earlier ones only,
# and is, by any earlier one that is at least as good on the axes after the first.


def _best_of_1(ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
    best = np.zeros(len(ranks), dtype=bool)
    best[:1] = True
    return best


def _best_of_2(ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
    second = ranks[:, 1]
    best = np.ones(len(ranks), dtype=bool)
    best[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    return best


def _best_of_3(ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Divide and conquer: every pair of earlier and later meets once, as the left and right half of some block."""
    n = len(ranks)
    index, third = np.arange(n), ranks[:, 2]
    by_second = np.lexsort((index, ranks[:, 1]))  # ties: earlier first
    best = np.ones(n, dtype=bool)
    half = 1
    while half < n:
        block = index // (2 * half)
        narrow = block[by_second].astype(np.min_scalar_type(block[-1]))  # 16 bits are sorted in linear time
        order = by_second[np.argsort(narrow, kind="stable")]  # by block, in each by the second axis
        is_left = (index // half % 2 == 0)[order]
        # The lowest third value so far among the left: each block's values are below those of all blocks before it.
        shift = block[order] * (n + 1)
        lowest = np.minimum.accumulate(np.where(is_left, third[order], n) - shift) + shift
        best[order[~is_left & (lowest <= third[order])]] = False
        by_second = by_second[best[by_second]]  # whoever one of these would shut out, another does too
        half *= 2
    return best


def _best_of_many(ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Compare in the order of the sum of ranks, which is lower for every point that dominates another."""
    order = np.argsort(ranks.sum(axis=1), kind="stable")
    archive = np.empty((0, ranks.shape[1]), dtype=ranks.dtype)
    best = np.zeros(len(ranks), dtype=bool)
    for start in range(0, len(ranks), CHUNK):
        chunk = order[start : start + CHUNK]
        for first in range(0, len(archive), ARCHIVE_CHUNK):
            chunk = chunk[~_shut_out(ranks[chunk], archive[first : first + ARCHIVE_CHUNK])]
        chunk = chunk[~_shut_out(ranks[chunk], ranks[chunk])]
        best[chunk] = True
        archive = np.concatenate([archive, ranks[chunk]])
    return best


def _shut_out(points: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which points [P, K] have a different one among `others` [Q, K] that is at least as good on every axis."""
    as_good = np.ones((len(points), len(others)), dtype=bool)
    equal = np.ones_like(as_good)
    for axis in range(points.shape[1]):
        as_good &= others[None, :, axis] <= points[:, None, axis]
        equal &= others[None, :, axis] == points[:, None, axis]
    found: NDArray[np.bool_] = np.logical_or.reduce(as_good & ~equal, axis=1)
    return found


def _volume(costs: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    """Volume of points in the order of their third cost: the growing area of the first two, swept upwards."""
    if len(costs) == 0:
        return 0.0
    xs, ys = [-np.inf, float(limit[0])], [float(limit[1]), -np.inf]  # a staircase: xs rise, ys fall
    area = volume = 0.0
    heights = np.append(costs[:, 2], limit[2])
    for (x, y, _), height in zip(costs.tolist(), np.diff(heights).tolist(), strict=True):
        area += _add_step(xs, ys, x, y)
        volume += area * height
    return float(volume)


def _add_step(xs: list[float], ys: list[float], x: float, y: float) -> float:
    """Put (x, y) on the staircase unless it is dominated; returns the area that it adds."""
    first = bisect_left(xs, x)
    above = ys[first - 1]
    if above <= y or (xs[first] == x and ys[first] <= y):
        return 0.0
    added, last, left = 0.0, first, x
    while ys[last] >= y:
        added += (xs[last] - left) * (above - y)
        left, above, last = xs[last], ys[last], last + 1
    added += (xs[last] - left) * (above - y)
    xs[first:last], ys[first:last] = [x], [y]
    return added
