"""Parallel coordinates: one line per stage through all measured quantities, higher is better on every axis."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from app.charts.axes import Axis
from app.charts.theme import FAMILY_COLOURS, HEIGHT, NEUTRAL
from core.analysis.dominance import Dominance

MOST_LINES = 200
ROOM = 46  # pixels above and below the axes for their ends


def list_lines(shown: pd.DataFrame, axes: Sequence[Axis]) -> pd.DataFrame:
    """One row per stage and axis: `place` from 0 (worst) to 1 (best), `value` as text, and what the stage is.

    If there are more than `MOST_LINES` stages, the frontier is kept first, then undecided stages, each sampled evenly
    along the first axis. A stage has no row for an axis on which it was not measured; constant axes are left out.
    """
    kept = _thinned(shown, axes[0])
    parts = []
    for axis in axes:
        values = kept[axis.column].to_numpy(dtype=float)
        known = np.isfinite(values)
        if not known.any() or np.ptp(values[known]) == 0:
            continue
        scaled = np.log(values) if axis.log and (values[known] > 0).all() else values
        low, high = np.nanmin(scaled), np.nanmax(scaled)
        place = (scaled - low) / (high - low)
        part = kept[["stage_id", "run_id", "label", "model", "family", "dominance"]].assign(
            axis=axis.head,
            place=1 - place if axis.better == "less" else place,
            value=[axis.read(value) if ok else "" for value, ok in zip(values, known, strict=True)],
            strong=(kept["dominance"] == Dominance.FRONTIER),
        )
        parts.append(part[known])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw_parallel(drawn: pd.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """The chart of the result of `lines`."""
    order = list(drawn["axis"].unique())
    families = [name for name in FAMILY_COLOURS if (drawn["family"] == name).any()]
    colours = alt.Scale(domain=families, range=[FAMILY_COLOURS[name] for name in families])
    x = alt.X(
        "axis:N", sort=order, title=None, axis=alt.Axis(labelAngle=0, grid=True, gridOpacity=0.8, labelPadding=24)
    )
    base = alt.Chart(drawn).encode(
        x=x,
        y=alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[0, 1])),
        detail="stage_id:N",
        color=alt.Color("family:N", scale=colours, title="Family", legend=alt.Legend(orient="top", symbolOpacity=1)),
        tooltip=[
            alt.Tooltip(f"{name}:N", title=title)
            for name, title in (
                ("label", "Stage"), ("model", "Model"), ("run_id", "Run"), ("dominance", "Dominance"), ("axis", "Axis"),
                ("value", "Value"),
            )
        ],
    )  # fmt: skip
    pale = base.transform_filter("!datum.strong").mark_line(opacity=0.25, strokeWidth=1)
    strong = base.transform_filter("datum.strong").mark_line(opacity=0.95, strokeWidth=2.5, point=True)
    ends = drawn.sort_values("place").groupby("axis", sort=False)
    best, worst = (alt.Chart(rows[["axis", "place", "value"]]) for rows in (ends.tail(1), ends.head(1)))
    words = (
        best.mark_text(baseline="bottom", dy=-8, color=NEUTRAL),
        worst.mark_text(baseline="top", dy=8, color=NEUTRAL),
    )
    texts = [mark.encode(x=x, y=alt.Y("place:Q", axis=None), text="value:N") for mark in words]
    return alt.layer(pale, strong, *texts).properties(height=HEIGHT - 2 * ROOM)


def _thinned(shown: pd.DataFrame, along: Axis) -> pd.DataFrame:
    """At most `MOST_LINES` stages."""
    kept, room = [], MOST_LINES
    rest = shown
    for dominance in (Dominance.FRONTIER, Dominance.UNDECIDED, None):
        rows = rest if dominance is None else rest[rest["dominance"] == dominance]
        rest = rest.drop(rows.index)
        if len(rows) > room:
            places = np.linspace(0, len(rows) - 1, room).round().astype(int)
            rows = rows.sort_values(along.column).iloc[places]
        kept.append(rows)
        room -= len(rows)
    return pd.concat(kept)
