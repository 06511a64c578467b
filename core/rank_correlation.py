"""Spearman's and Pearson's correlation, and how much each example contributes to Spearman's. Loads no torch."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Values = NDArray[np.float64]


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Correlation of x [N] and y [N]; 0 where one of them is constant."""
    dx, dy = _centred(np.asarray(x, dtype=np.float64)), _centred(np.asarray(y, dtype=np.float64))
    scale = float(np.sqrt((dx**2).sum() * (dy**2).sum()))
    return float((dx * dy).sum()) / scale if scale else 0.0


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of the ranks of x [N] and y [N]; equal values share their mean rank."""
    return pearson(rankdata(x), rankdata(y))


def spearman_influence(x: ArrayLike, y: ArrayLike) -> tuple[float, Values]:
    """Spearman's correlation and the influence of each example [N], whose mean is 0.

    The correlation is a function of the joint distribution of (x, y) through both marginal ranks: an example moves it
    by its own ranks, and by raising the ranks of all larger ones. Standard error: that of the mean of the influences.
    """
    u, v = _centred_ranks(x), _centred_ranks(y)
    n = len(u)
    covariance, u_variance, v_variance = (float((a * b).sum()) / n for a, b in ((u, v), (u, u), (v, v)))
    if not u_variance or not v_variance:
        return 0.0, np.zeros(n)
    correlation = covariance / np.sqrt(u_variance * v_variance)
    of_covariance = u * v + _raised(u, v) + _raised(v, u)
    of_u, of_v = u * u + 2 * _raised(u, u), v * v + 2 * _raised(v, v)
    influence = of_covariance / np.sqrt(u_variance * v_variance) - correlation / 2 * (
        of_u / u_variance + of_v / v_variance
    )
    return float(correlation), influence - influence.mean()


def _centred_ranks(values: ArrayLike) -> Values:
    """Ranks as shares of the number of examples [N], with mean 0."""
    ranks = _centred(rankdata(values))
    return ranks / len(ranks)


def _centred(values: Values) -> Values:
    return values - values.mean()


def _raised(ranks: Values, other: Values) -> Values:
    """Mean over all examples of `other` where an example raises their rank: fully if smaller, half if equal [N]."""
    order = np.argsort(ranks, kind="stable")
    _, first, group = np.unique(ranks[order], return_index=True, return_inverse=True)
    of_group = np.add.reduceat(other[order], first)
    above = of_group.sum() - np.cumsum(of_group) + of_group / 2
    found = np.empty(len(ranks))
    found[order] = above[group]
    return found / len(ranks)
