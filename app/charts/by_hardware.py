"""Small trade-off scatter plots, one per hardware, with shared axes so that the panels can be compared."""

from typing import Any, Literal

import altair as alt
import pandas as pd

from app.charts.annotated import list_texts
from app.charts.axes import NUMBER, Axis
from app.charts.theme import FAMILY_COLOURS, FAMILY_SHAPES, NEUTRAL, PALE, PLAIN
from core.analysis.dominance import Dominance

PANEL = {"width": 300, "height": 240}
COLUMNS = 3


def draw_by_hardware(shown: pd.DataFrame, x: Axis, y: Axis, *, log_x: bool, log_y: bool) -> alt.FacetChart:
    """The chart of points from `annotate`, with an additional column `hardware`."""
    families = [name for name in FAMILY_COLOURS if (shown["family"] == name).any()]
    fields: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for name, axis, log, channel in (("x", x, log_x, alt.X), ("y", y, log_y, alt.Y)):
        values = shown[axis.column].astype(float)
        factor, unit = axis.unit_for(float(values.max()))
        fields[f"{name}_shown"] = values / factor
        worse_up = name == "y" and axis.better == "less"
        scale = alt.Scale(type="log" if log and (values > 0).all() else "linear", zero=False, reverse=worse_up)
        title = f"{axis.title} ({unit})" if unit else axis.title
        ticks = alt.Axis(format=NUMBER, tickCount=4, labelOverlap="greedy", gridOpacity=0.4)
        channels[name] = channel(f"{name}_shown:Q", scale=scale, title=title, axis=ticks)
    titles = {axis.title: f"{axis.column}_text" for axis in (x, y)}
    fields |= {f"{axis.column}_text": list_texts(shown, axis) for axis in (x, y)}
    columns = ["hardware", "family", "label", "model", "run_id", "dominance", "on_frontier"]
    drawn = shown[columns].assign(**fields, strength=shown["dominance"].map(_STRENGTHS).fillna(PALE))
    base = alt.Chart().encode(**channels)
    steps: Literal["step-after", "step-before"] = "step-after" if x.better == "less" else "step-before"
    edge = base.transform_filter("datum.on_frontier").mark_line(
        interpolate=steps, color=NEUTRAL, strokeDash=[6, 3], strokeWidth=1.5
    )
    colours = alt.Scale(domain=families, range=[FAMILY_COLOURS[name] for name in families])
    shapes = alt.Scale(domain=families, range=[FAMILY_SHAPES[name] for name in families])
    legend = alt.Legend(orient="top", symbolOpacity=1)
    shown_columns = {"Stage": "label", "Model": "model", "Run": "run_id", "Dominance": "dominance", **titles}
    marks = base.mark_point(filled=True, size=50).encode(
        color=alt.Color("family:N", scale=colours, title="Family", legend=legend),
        shape=alt.Shape("family:N", scale=shapes, title="Family", legend=legend),
        opacity=alt.Opacity("strength:Q", scale=None),
        tooltip=[alt.Tooltip(f"{column}:N", title=title) for title, column in shown_columns.items()],
    )
    panels = alt.layer(marks, edge, data=drawn).properties(**PANEL)
    return panels.facet(facet=alt.Facet("hardware:N", title=None), columns=COLUMNS)


_STRENGTHS = {Dominance.FRONTIER.value: PLAIN, Dominance.UNDECIDED.value: 0.55, Dominance.DOMINATED.value: PALE}
