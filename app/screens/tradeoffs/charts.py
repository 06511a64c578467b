"""The page's charts of the same points: scatter, parallel coordinates, and one panel per hardware."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import pandas as pd
import streamlit as st

from app.charts.annotated import annotate
from app.charts.by_hardware import draw_by_hardware
from app.charts.parallel import MOST_LINES, draw_parallel, list_lines
from app.charts.tradeoffs import SELECTION, draw_scatter
from app.queries import tradeoffs
from app.screens.tradeoffs.filters import Filters
from app.screens.tradeoffs.plot import Plot
from app.text import formats
from core.store.tradeoffs.columns import TIMED
from core.store.tradeoffs.filters import Conditions, PointFilter

CHARTS = ("scatter", "parallel coordinates", "by hardware")
MOST_PANELS = 9
HOW = (
    "Significance: Welch's test at 0.05, divided by the number of stages that could be better (Bonferroni), on the "
    "score and on every other quantity with an interval. Sizes and median latencies count as exact. Seeds of the same "
    "recipe are one mark at their mean, with the t interval over the seeds or the interval over the test examples, "
    "whichever is wider. The knee is the point of the frontier farthest from the straight line between its ends, with "
    "both axes scaled to their range."
)
Chart = alt.LayerChart | alt.FacetChart


def show_scatter(shown: pd.DataFrame, asked: Filters, plot: Plot) -> tuple[alt.LayerChart, set[int]]:
    """Draw one mark per stage; returns the chart and the ids of the clicked stages."""
    logs = asked.logs
    chart = draw_scatter(
        shown, plot.x, plot.y, asked.limits, size=asked.size, axes=plot.axes, log_x=logs.x, log_y=logs.y
    )
    event = st.altair_chart(chart, on_select="rerun", selection_mode=SELECTION, key="scatter")
    n_points, y = int(shown["n"].sum()), plot.y
    many = (
        f" {formats.plural(n_points, asked.kind)} drawn as {formats.plural(len(shown), 'mark')}; neighbours are merged."
        if n_points > len(shown)
        else ""
    )
    reversed_axis = f" The Y axis is reversed, because lower {y.words} is better." if y.better == "less" else ""
    st.caption(
        "Filled marks are on the Pareto frontier: no other is at least as good on both axes and better on one. Hollow "
        "marks are undecided: another is better, but not significantly. Rings mark references, bars 95 % intervals."
        f"{reversed_axis} Click a mark (Shift-click for several) to list it below.{many}",
        help=HOW,
    )
    selected = event.selection.get(SELECTION, []) if event else []
    return chart, {row["stage_id"] for row in selected}


def show_parallel(shown: pd.DataFrame, plot: Plot) -> Chart | None:
    """Draw one line per point, the chosen axes first; returns the chart, None if the points are identical."""
    x, y = plot.x, plot.y
    others = [axis for column, axis in plot.axes.items() if axis not in (x, y) and column in shown]
    drawn = list_lines(shown, [x, y, *others])
    if drawn.empty:
        st.info("These stages are identical on every axis.")
        return None
    chart = draw_parallel(drawn)
    st.altair_chart(chart, width="stretch")
    n_lines = int(drawn["stage_id"].nunique())
    few = f" {n_lines} of {len(shown)} are shown, the frontier first." if len(shown) > MOST_LINES else ""
    st.caption(
        "Higher is better on every axis; each spans the worst to the best value shown. Strong lines are on the Pareto "
        f"frontier of {x.words} and {y.words}.{few}"
    )
    return chart


def show_by_hardware(chosen: PointFilter, asked: Filters, plot: Plot, timed: Sequence[Conditions]) -> Chart | None:
    """Draw one panel per hardware, all other conditions as chosen; returns the chart, None if nothing was timed.

    The X axis is the chosen one if it is a time, otherwise the median latency.
    """
    if chosen.conditions is None:
        st.info("No latencies were measured for this task, so there is no hardware to compare.")
        return None
    across, up, logs = plot.x if plot.x.column in TIMED else plot.axes["p50_ms"], plot.y, asked.logs
    alike = [found for found in timed if _work(found) == _work(chosen.conditions)]
    first = {found.hardware: found for found in reversed(alike)}
    panels = []
    for hardware, conditions in sorted(first.items())[:MOST_PANELS]:
        points = tradeoffs.load_points(
            replace(chosen, conditions=conditions), across.column, up.column, logs, as_one=asked.as_one
        )
        if not points.empty:
            panels.append(annotate(points, across, up, asked.limits, plot.axes).assign(hardware=hardware))
    if not panels:
        st.info("None of the stages that match the filters was timed under these conditions.")
        return None
    shown = pd.concat(panels, ignore_index=True)
    chart = draw_by_hardware(shown, across, up, log_x=logs.x, log_y=logs.y)
    st.altair_chart(chart)
    st.caption(
        f"{across.title} on each hardware, with all other conditions equal. All panels share the same axes. Strong "
        "marks are on the Pareto frontier of their panel, the palest are dominated."
    )
    return chart


def _work(conditions: Conditions) -> tuple[object, ...]:
    """What was timed, apart from the hardware."""
    return conditions.runtime, conditions.batch, conditions.length, conditions.phase
