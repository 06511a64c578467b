"""Curves of a run: losses, rates and scores over the updates of a training."""

import altair as alt
import pandas as pd

from app.charts.theme import FAMILY_COLOURS, NEUTRAL
from core.families import Family

CURVE_HEIGHT = 220
RAW = 0.25  # opacity of the values themselves behind their running mean


def curve(
    points: pd.DataFrame, title: str, *, smooth: bool = True, log: bool = False
) -> alt.LayerChart | alt.FacetChart:
    """One curve of `step`, `value` and, where points were thinned, `low` and `high` of each bucket."""
    colour = FAMILY_COLOURS[Family.QUANTIZATION]
    positive = bool((points["value"] > 0).all())
    scale = alt.Scale(type="log" if log and positive else "linear", zero=False)
    drawn = points.assign(smoothed=points["value"].ewm(span=max(2, len(points) // 30)).mean())
    base = alt.Chart(drawn).encode(
        x=alt.X("step:Q", title="update", axis=alt.Axis(format="~s", tickMinStep=1)),
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
