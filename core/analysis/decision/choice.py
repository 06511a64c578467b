"""The recommendation among measured stages: the best one within all limits, and what would change it.

Without weights, the best stage has the best score. A weight is how much score halving a quantity is worth: the best
stage then has the highest score - sum of weight * log2(quantity). Unlike a sum of values scaled to 0..1, this does
not depend on the units, and adding or removing a third stage does not change which of two is better. Of equals, the
smallest is the best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.analysis.decision.limits import Limit

Values = Mapping[str, ArrayLike]  # quantity -> [N]; NaN (or None): not measured


@dataclass(frozen=True)
class Move:
    """A value of a limit at which the recommendation changes, and the new choice; None: none is within all limits."""

    bound: float
    best: int | None
    gain: float | None = None  # in utility over the present best; None if one of both is missing


@dataclass(frozen=True)
class Margin:
    """How far one limit can be moved, with the others fixed, until the recommendation changes.

    Values of a limit between which nothing changes are skipped. `tighter` holds as soon as the limit is tighter
    than its bound (which the present best just keeps), `looser` as soon as the limit allows its bound.
    """

    limit: Limit
    tighter: Move | None  # None: no tightening loses the present best, or there is none
    looser: Move | None  # None: no loosening finds a better one
    unmeasured: int  # stages that keep all other limits and were not measured for this one


@dataclass(frozen=True)
class Decision:
    """Indices [0, N) of the given stages."""

    feasible: NDArray[np.bool_]  # [N]
    best: int | None
    runner_up: int | None
    margins: tuple[Margin, ...]  # one a limit, in their order

    @property
    def n_feasible(self) -> int:
        """The number of stages within all limits."""
        return int(self.feasible.sum())

    def named(self) -> set[int]:
        """Every stage that the decision refers to."""
        moves = [move for margin in self.margins for move in (margin.tighter, margin.looser) if move]
        return {at for at in (self.best, self.runner_up, *(move.best for move in moves)) if at is not None}


def decide(
    values: Values,
    limits: Sequence[Limit],
    weights: Mapping[str, float] | None = None,
    *,
    higher_is_better: bool,
    p_values: Mapping[str, ArrayLike] | None = None,
) -> Decision:
    """The decision among N stages, whose `values` are `score`, `size_bytes` and the quantities of limits and weights.

    `p_values` are from the paired tests of quantities whose limit is `significant_only`. A stage without a score, or
    without a positive value of a weighted quantity, is never recommended. Raises ValueError for a quantity without
    values.
    """
    table = {name: np.asarray(column, dtype=float) for name, column in values.items()}
    missing = {"score", "size_bytes", *(limit.quantity for limit in limits), *(weights or {})} - set(table)
    if missing:
        raise ValueError(f"no values were recorded for {', '.join(sorted(missing))}")
    utilities = _utilities(table, weights or {}, higher_is_better)
    ranked = ~np.isnan(utilities)
    tests = p_values or {}
    p_of = {limit.quantity: np.broadcast_to(tests.get(limit.quantity, np.nan), len(utilities)) for limit in limits}
    kept = [limit.keeps(table[limit.quantity], p_of[limit.quantity]) for limit in limits]
    order = _Order(utilities, table["size_bytes"])
    feasible = np.logical_and.reduce([ranked, *kept])
    best, runner_up = order.first_two(feasible)
    margins = tuple(
        _Question(
            limit,
            table[limit.quantity],
            limit.exempt(p_of[limit.quantity]),
            np.logical_and.reduce([ranked, *kept[:at], *kept[at + 1 :]]),
            order,
            best,
        ).margin()
        for at, limit in enumerate(limits)
    )
    return Decision(feasible, best, runner_up, margins)


def _utilities(table: Mapping[str, NDArray[Any]], weights: Mapping[str, float], higher: bool) -> NDArray[np.float64]:
    """The utility to maximize [N], in the score's unit; NaN if a value was not measured."""
    utilities = table["score"] if higher else -table["score"]
    for name, weight in weights.items():
        utilities = utilities - weight * np.log2(np.where(table[name] > 0, table[name], np.nan))
    return utilities


class _Order:
    """Stages by utility; of equal ones the smaller comes first, then the earlier."""

    def __init__(self, utilities: NDArray[np.float64], sizes: NDArray[np.float64]):
        self.utilities = utilities
        self.ranks = np.lexsort((sizes, -utilities))  # stable: the earlier first

    def first_two(self, among: NDArray[np.bool_]) -> tuple[int | None, int | None]:
        """The best two of a mask [N]."""
        found = self.ranks[among[self.ranks]][:2].tolist()
        return (*found, None, None)[:2]

    def gain(self, new: int | None, old: int | None) -> float | None:
        """How much more utility `new` has."""
        return None if new is None or old is None else float(self.utilities[new] - self.utilities[old])


class _Question:
    """How far one limit can be moved, among the stages of `others_kept`, which are within all other limits."""

    def __init__(
        self,
        limit: Limit,
        values: NDArray[np.float64],
        exempt: NDArray[np.bool_],
        others_kept: NDArray[np.bool_],
        order: _Order,
        best: int | None,
    ):
        self.limit, self.values, self.others_kept, self.order, self.best = limit, values, others_kept, order, best
        self.costs = np.where(exempt, -np.inf, limit.costs(values))  # a value that may be chance keeps every bound
        self.costs[np.isnan(values)] = np.nan
        self.measured = others_kept & ~np.isnan(self.costs)

    def margin(self) -> Margin:
        """The nearest moves in both directions that change the recommendation."""
        unmeasured = int((self.others_kept & ~self.measured).sum())
        return Margin(self.limit, tighter=self._tighter(), looser=self._looser(), unmeasured=unmeasured)

    def _tighter(self) -> Move | None:
        if self.best is None or np.isneginf(self.costs[self.best]):
            return None
        left, _ = self.order.first_two(self.measured & (self.costs < self.costs[self.best] - self.limit.slack))
        return Move(float(self.values[self.best]), left, self.order.gain(left, self.best))

    def _looser(self) -> Move | None:
        beyond = self.measured & (self.costs > self.limit.costs(self.limit.bound) + self.limit.slack)
        if self.best is not None:
            beyond &= self.order.utilities > self.order.utilities[self.best]
        if not beyond.any():
            return None
        nearest = self.costs[beyond].min()
        found, _ = self.order.first_two(beyond & (self.costs == nearest))
        assert found is not None
        return Move(float(self.values[found]), found, self.order.gain(found, self.best))
