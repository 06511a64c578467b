"""Annotations of the points of the trade-off chart: dominance, limits, and the values of the tooltip."""

import math
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.charts.axes import Axis, select_known
from app.charts.theme import PALE, PLAIN
from core.analysis.dominance import Dominance, judge_dominance
from core.analysis.pareto import find_knee
from core.analysis.seeds import standard_errors

OUTSIDE = "outside the limits"
DOMINANCES = (*(dominance.value for dominance in Dominance), OUTSIDE)
DIRECTIONS: dict[str, Literal["min", "max"]] = {"less": "min", "more": "max"}


def annotate(points: pd.DataFrame, x: Axis, y: Axis, limits: dict[str, float], axes: dict[str, Axis]) -> pd.DataFrame:
    """Points known on both axes, with `is_reference`, `feasible`, `on_frontier`, `is_knee` and `dominance`.

    `limits` holds the worst allowed value of a column, in its stored unit.
    """
    shown = select_known(points, x, y).copy()
    shown["is_reference"] = shown["stage_id"].isin(set(shown["reference_stage_id"].dropna()))
    shown["feasible"] = find_feasible(shown, limits, axes)
    directions = [DIRECTIONS[x.better], DIRECTIONS[y.better]]
    places = shown[[x.column, y.column]].to_numpy(dtype=float)
    spreads, dfs = (
        np.column_stack(columns) for columns in zip(*(list_errors(shown, axis) for axis in (x, y)), strict=True)
    )
    found = judge_dominance(places, spreads, dfs, directions, shown.get("n"))
    shown["on_frontier"] = [dominance is Dominance.FRONTIER for dominance in found]
    shown["is_knee"] = np.arange(len(shown)) == find_knee(places, directions)
    shown["dominance"] = [
        dominance.value if kept else OUTSIDE for dominance, kept in zip(found, shown["feasible"], strict=True)
    ]
    shown["strength"] = np.where(
        shown["feasible"] & (shown["is_reference"] | (shown["dominance"] != Dominance.DOMINATED)), PLAIN, PALE
    )
    if "n_seeds" in shown:
        shown["seeds_text"] = [
            f"{n} (runs {runs})" if n > 1 else "1" for n, runs in zip(shown["n_seeds"], shown["runs"], strict=True)
        ]
    return shown


def find_feasible(points: pd.DataFrame, limits: dict[str, float], axes: dict[str, Axis]) -> pd.Series:
    """Which points meet every limit; a point with an unknown value does not."""
    kept = pd.Series(True, index=points.index)
    for column, bound in limits.items():
        kept &= axes[column].limit(bound).keeps(points[column].astype(float))
    return kept


def _column(shown: pd.DataFrame, name: str, otherwise: float) -> NDArray[np.float64]:
    """A column's values, with `otherwise` in place of missing ones."""
    if name not in shown:
        return np.full(len(shown), otherwise)
    values = shown[name].to_numpy(dtype=float)
    return np.where(np.isnan(values), otherwise, values)


def list_errors(shown: pd.DataFrame, axis: Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard errors on an axis (0 for exact values) and their degrees of freedom."""
    low, high, own = (_column(shown, name, math.nan) for name in (axis.low, axis.high, f"{axis.column}_own"))
    return standard_errors(low, high, _column(shown, f"{axis.column}_df", math.inf), own)


def list_texts(shown: pd.DataFrame, axis: Axis) -> list[str]:
    """The tooltip's value of the axis for each point."""
    read = cache(axis.read)
    values, low, high = (_column(shown, name, math.nan).tolist() for name in (axis.column, axis.low, axis.high))
    between = np.isfinite(_column(shown, f"{axis.column}_df", math.inf)).tolist()
    return [
        "not measured"
        if math.isnan(value)
        else read(value)
        if math.isnan(lower) or math.isnan(upper)
        else f"{read(value)}  (95 %{' between seeds' if seeds else ''}: {read(lower)} to {read(upper)})"
        for value, lower, upper, seeds in zip(values, low, high, between, strict=True)
    ]
