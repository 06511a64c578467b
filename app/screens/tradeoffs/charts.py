"""The page's charts of the same points: one mark a stage, one line a stage, one panel a hardware."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import pandas as pd
import streamlit as st

from app.charts.annotated import annotate
from app.charts.by_hardware import by_hardware
from app.charts.parallel import MOST_LINES, lines, parallel
from app.charts.tradeoffs import SELECTION, scatter
from app.queries import tradeoffs
from app.screens.tradeoffs.filters import Filters
from app.screens.tradeoffs.plot import Plot
from app.text import formats
from core.store.tradeoffs.columns import TIMED
from core.store.tradeoffs.filters import Conditions, PointFilter

CHARTS = ("scatter", "parallel coordinates", "by hardware")
MOST_PANELS = 9
HOW = (
    "Significant: Welch's test of the scores (and of what else has an interval) at 0.05 over the number of stages that "
    "might be better; sizes and medians of latency count as exact. Seeds of one recipe are one mark: their mean, with "
    "the t interval over the seeds or, where that is wider, the one over the test examples. The knee is the stage of "
    "the frontier that lies farthest beyond the straight line between its ends, both axes scaled to their range."
)
Chart = alt.LayerChart | alt.FacetChart


def show_scatter(shown: pd.DataFrame, asked: Filters, plot: Plot) -> tuple[alt.LayerChart, set[int]]:
    """Draw a mark a stage; returns the chart, and the stages that were clicked."""
    logs = asked.logs
    chart = scatter(shown, plot.x, plot.y, asked.limits, size=asked.size, axes=plot.axes, log_x=logs.x, log_y=logs.y)
    event = st.altair_chart(chart, on_select="rerun", selection_mode=SELECTION, key="scatter")
    stood_for, up = int(shown["n"].sum()), plot.y
    many = (
        f" {formats.plural(stood_for, asked.kind)} drawn as {formats.plural(len(shown), 'mark')}: neighbours are one."
        if stood_for > len(shown)
        else ""
    )
    turned = f" Less {up.words} is better, so the upward axis is turned." if up.better == "less" else ""
    st.caption(
        "Full marks are on the frontier: no other is as good on both axes and better on one. Hollow ones are "
        "undecided: another is better, but none significantly. Rings mark references, bars 95 % intervals."
        f"{turned} Click marks (with shift: several) to list them below.{many}",
        help=HOW,
    )
    selected = event.selection.get(SELECTION, []) if event else []
    return chart, {row["stage_id"] for row in selected}


def show_parallel(shown: pd.DataFrame, plot: Plot) -> Chart | None:
    """Draw a line a point, from the axes that were chosen to all others; returns it, None where nothing differs."""
    x, y = plot.x, plot.y
    others = [axis for column, axis in plot.axes.items() if axis not in (x, y) and column in shown]
    drawn = lines(shown, [x, y, *others])
    if drawn.empty:
        st.info("These stages differ on no axis.")
        return None
    chart = parallel(drawn)
    st.altair_chart(chart, width="stretch")
    n_lines = int(drawn["stage_id"].nunique())
    few = f" {n_lines} of {len(shown)} are drawn, the frontier first." if len(shown) > MOST_LINES else ""
    st.caption(
        "Up is better on every axis, which ends at the worst and the best value that is drawn; strong lines are on the "
        f"frontier of {x.words} and {y.words}.{few}"
    )
    return chart


def show_by_hardware(chosen: PointFilter, asked: Filters, plot: Plot, timed: Sequence[Conditions]) -> Chart | None:
    """Draw a panel a hardware under otherwise the chosen conditions; returns the chart, None where nothing is timed.

    Across stands a time: the chosen axis where it is one, else the median latency.
    """
    if chosen.conditions is None:
        st.info("No stage was timed here, so there is no hardware to compare.")
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
        st.info("No stage that the filters leave was timed under these conditions.")
        return None
    shown = pd.concat(panels, ignore_index=True)
    chart = by_hardware(shown, across, up, log_x=logs.x, log_y=logs.y)
    st.altair_chart(chart)
    st.caption(
        f"{across.title} on each hardware, under otherwise the same conditions; all panels have the same axes. Strong "
        "marks are on their panel's frontier, the palest are dominated."
    )
    return chart


def _work(conditions: Conditions) -> tuple[object, ...]:
    """What was timed, wherever."""
    return conditions.runtime, conditions.batch, conditions.length, conditions.phase
