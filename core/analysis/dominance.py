"""Dominance between uncertain points. Loads no torch.

A point is dominated if another one is at least as good on every axis with exact values (a size) and significantly
better on every axis with uncertain ones: two-sided Welch's test of the two means (Welch, 1947; the normal one where
both standard errors are known), at 0.05 over the number of points that might dominate it (Bonferroni). So a point
that belongs on the frontier is called dominated with a probability of at most 0.05, however many others there are.
The test assumes independence, but models scored on the same examples make correlated errors, so it is conservative.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from core.analysis.pareto import Direction, find_frontier
from core.measured import SIGNIFICANT

PESSIMISM = 1.96  # standard errors below its value, at which a sure point may beat a better, less sure one


class Dominance(StrEnum):
    """The relation of a point to all others."""

    FRONTIER = "on the frontier"  # as measured
    UNDECIDED = "undecided"  # another is better as measured, but none significantly
    DOMINATED = "dominated"


def judge_dominance(
    points: ArrayLike,
    errors: ArrayLike,
    dfs: ArrayLike,
    directions: Sequence[Direction],
    counts: ArrayLike | None = None,
) -> list[Dominance]:
    """The dominance of each point [N, K].

    `errors` [N, K] are standard errors (0: exact), `dfs` [N, K] their degrees of freedom, `counts` [N] how many
    points each represents. Points are compared with those on the measured frontier, and with those on the frontier of
    values less `PESSIMISM` standard errors. A point with a missing value (NaN) is dominated. Raises ValueError for
    incompatible shapes.
    """
    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in directions])
    on_frontier = find_frontier(points, directions)
    costs = np.asarray(points, dtype=float).reshape(-1, len(directions)) * signs
    variances, degrees = (np.broadcast_to(np.asarray(a, dtype=float), costs.shape) for a in (errors, dfs))
    variances = variances**2
    weights = np.ones(len(costs)) if counts is None else np.asarray(counts, dtype=float)
    rivals = _rivals(costs, variances, weights)
    pessimistic = find_frontier(costs + PESSIMISM * np.sqrt(variances), ["min"] * len(directions))
    left = np.flatnonzero(~on_frontier & ~np.isnan(costs).any(axis=1))
    for rival in _spread(np.flatnonzero(on_frontier | pessimistic), costs):
        gaps = [costs[left, axis] - costs[rival, axis] for axis in range(len(signs))]
        behind = np.logical_and.reduce([gap >= 0 for gap in gaps]) & np.logical_or.reduce([gap > 0 for gap in gaps])
        at = left[behind]
        gap = np.column_stack(gaps)[behind]
        p = _p_values(gap, variances[at], variances[rival], degrees[at], degrees[rival])
        behind[behind] = (p * rivals[at, None] < SIGNIFICANT).all(axis=1)
        left = left[~behind]
    undecided = np.zeros(len(costs), dtype=bool)
    undecided[left] = True
    return [
        Dominance.FRONTIER if best else Dominance.UNDECIDED if open_ else Dominance.DOMINATED
        for best, open_ in zip(on_frontier.tolist(), undecided.tolist(), strict=True)
    ]


def _spread(rivals: NDArray[np.intp], costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """The rivals in an order that covers all parts of the frontier early, so that few points remain to be compared."""
    along = rivals[np.argsort(costs[rivals, 0], kind="stable")]
    golden = (np.sqrt(5) - 1) / 2  # its multiples' fractions are spread evenly
    return along[np.argsort(np.arange(len(along)) * golden % 1)]


def _rivals(
    costs: NDArray[np.float64], variances: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The number of points that may dominate each [N]: those that are not worse on any axis with exact values."""
    fewest = np.full(len(costs), weights.sum())
    for cost, variance in zip(costs.T, variances.T, strict=True):
        if not variance.any():
            order = np.argsort(cost, kind="stable")
            last_of_equals = np.searchsorted(cost[order], cost, side="right") - 1
            fewest = np.minimum(fewest, np.cumsum(weights[order])[last_of_equals])
    return np.maximum(fewest - 1.0, 1.0)


def _p_values(
    behind: NDArray[np.float64],
    variances: NDArray[np.float64],
    variance: NDArray[np.float64],
    degrees: NDArray[np.float64],
    degree: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Two-sided p-values [M, K] that points `behind` a rival by so much are as good as it; 0 where both are exact."""
    total = variances + variance
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total > 0, behind / np.sqrt(total), np.inf)
        df = total**2 / (variances**2 / degrees + variance**2 / degree)
    normal = ~np.isfinite(df)
    tail = np.where(normal, special.ndtr(-t), special.stdtr(np.where(normal, 1.0, df), -t))
    return np.where(total > 0, 2 * tail, 0.0)
