"""Curves of a run: losses, rates and scores over the updates of a training."""

import altair as alt
import pandas as pd

from app.charts.theme import FAMILY_COLOURS, NEUTRAL, SERIES
from core.families import Family

CURVE_HEIGHT = 220
OVERLAY_HEIGHT = 340
FAINT = 0.12  # opacity of the lines not selected in the legend
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]  # distinguishable without colour
RAW = 0.25  # opacity of the raw values behind their running mean


def draw_curve(
    points: pd.DataFrame, title: str, *, smooth: bool = True, log: bool = False
) -> alt.LayerChart | alt.FacetChart:
    """One curve of `step`, `value` and, if points were thinned, `low` and `high` of each bucket."""
    colour = FAMILY_COLOURS[Family.QUANTIZATION]
    positive = bool((points["value"] > 0).all())
    scale = alt.Scale(type="log" if log and positive else "linear", zero=False)
    drawn = points.assign(smoothed=points["value"].ewm(span=max(2, len(points) // 30)).mean())
    base = alt.Chart(drawn).encode(
        x=_updates(),
        tooltip=[alt.Tooltip("step:Q", title="update", format=","), alt.Tooltip("value:Q", title=title, format=".4g")],
    )
    many = smooth and len(points) > 60
    layers = []
    if many and "low" in points:
        layers.append(
            base.mark_area(color=NEUTRAL, opacity=RAW).encode(y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q")
        )
    raw = base.mark_line(color=colour, opacity=RAW if many else 1, point=len(points) <= 25)
    layers.append(raw.encode(y=alt.Y("value:Q", scale=scale, title=title)))
    if many:
        layers.append(base.mark_line(color=colour).encode(y=alt.Y("smoothed:Q", scale=scale, title=title)))
    return alt.layer(*layers).properties(height=CURVE_HEIGHT)


def draw_overlay(
    points: pd.DataFrame, title: str, names: list[str], *, log: bool = False
) -> alt.LayerChart | alt.FacetChart:
    """The same curve of several runs: rows of `step`, `value` and `name`, one of `names` (the base first)."""
    positive = bool((points["value"] > 0).all())
    smoothed = points.groupby("name")["value"].transform(lambda v: v.ewm(span=max(2, len(v) // 30)).mean())
    chosen = alt.selection_point(fields=["name"], bind="legend")
    chart = (
        alt.Chart(points.assign(smoothed=smoothed))
        .mark_line()
        .encode(
            x=_updates(),
            y=alt.Y(
                "smoothed:Q",
                title=title,
                scale=alt.Scale(type="log" if log and positive else "linear", zero=False),
            ),
            color=alt.Color(
                "name:N",
                title=None,
                sort=names,
                scale=alt.Scale(domain=names, range=list(SERIES)),
                legend=alt.Legend(orient="bottom", columns=2, labelLimit=420),
            ),
            strokeDash=alt.StrokeDash("name:N", sort=names, scale=alt.Scale(domain=names, range=DASHES), legend=None),
            opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(FAINT)),
            tooltip=[
                alt.Tooltip("name:N", title="stage"),
                alt.Tooltip("step:Q", title="update", format=","),
                alt.Tooltip("value:Q", title=title, format=".4g"),
            ],
        )
        .add_params(chosen)
    )
    return alt.layer(chart).properties(height=OVERLAY_HEIGHT)


def _updates() -> alt.X:
    scale = alt.Scale(nice=False, zero=False)
    return alt.X("step:Q", title="Update", scale=scale, axis=alt.Axis(format="~s", tickMinStep=1))
