"""The hypervolume of the Pareto frontier over time, and the stages that advanced it."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts.axes import Axis
from app.charts.theme import SERIES
from core.analysis.pareto import compute_hypervolume_steps

HISTORY_HEIGHT = 220


def list_steps(points: pd.DataFrame, x: Axis, y: Axis, *, log_x: bool, log_y: bool) -> pd.DataFrame:
    """The stages that advanced the frontier: stage_id, x, y, at, the hypervolume `share` from then on, and its `gain`.

    The share is of the rectangle between the best and the worst value of each axis among `points` (in chronological
    order), each axis scaled as drawn.
    """
    scaled = np.column_stack([_scaled(points["x"], log_x), _scaled(points["y"], log_y)])
    signs = np.array([-1.0 if axis.better == "more" else 1.0 for axis in (x, y)])
    costs = scaled * signs
    worst, best = costs.max(axis=0), costs.min(axis=0)
    span = np.where(worst > best, worst - best, 1.0)
    unit = (costs - best) / span
    edge = np.nextafter(1.0, 2.0)  # so that a point on the edge of the rectangle opens it
    found = compute_hypervolume_steps(unit, ["min", "min"], [edge, edge])
    moved = points.iloc[[index for index, _ in found]].copy()
    moved["share"] = [min(1.0, area) for _, area in found]
    moved["gain"] = moved["share"].diff().fillna(moved["share"])
    return moved


def draw_history(
    moved: pd.DataFrame, makers: Mapping[int, Mapping[str, Any]], x: Axis, y: Axis
) -> alt.LayerChart | alt.FacetChart:
    """The step chart of the result of `steps`; `makers` have each stage's label, model, run_id and owner."""
    made = pd.DataFrame([makers.get(int(stage_id), {}) for stage_id in moved["stage_id"]])
    drawn = pd.DataFrame(
        {
            "at": pd.to_datetime(moved["at"].to_numpy(), unit="s"),
            "share": 100 * moved["share"].to_numpy(),
            "gain": [f"+{100 * gain:.2g} points" for gain in moved["gain"]],
            "x_text": [x.read(value) for value in moved["x"]],
            "y_text": [y.read(value) for value in moved["y"]],
            **{name: made[name].to_numpy() for name in ("label", "model", "run_id", "owner") if name in made},
        }
    )
    chart = alt.Chart(drawn).encode(
        x=alt.X("at:T", title=None),
        y=alt.Y("share:Q", title="Hypervolume (% of the chart)", scale=alt.Scale(zero=False)),
    )
    tooltip = [
        alt.Tooltip(f"{name}:N", title=title)
        for name, title in (
            ("owner", "Advanced by"), ("run_id", "Run"), ("label", "Stage"), ("model", "Model"),
            ("x_text", x.title), ("y_text", y.title), ("gain", "Gain"),
        )
        if name in drawn
    ]  # fmt: skip
    line = chart.mark_line(interpolate="step-after", color=SERIES[0])
    marks = chart.mark_point(filled=True, size=60, color=SERIES[0]).encode(
        tooltip=[*tooltip, alt.Tooltip("at:T", title="Recorded (UTC)", format="%Y-%m-%d %H:%M")]
    )
    return alt.layer(line, marks).properties(height=HISTORY_HEIGHT)


def _scaled(values: pd.Series, log: bool) -> np.ndarray:
    numbers = values.to_numpy(dtype=float)
    return np.log(numbers) if log and (numbers > 0).all() else numbers
