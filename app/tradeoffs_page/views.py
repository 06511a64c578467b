"""The page's other charts of the same points."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import altair as alt
import pandas as pd
import streamlit as st

from app import point_data
from app.charts.annotated import annotate
from app.charts.axes import Axis
from app.charts.by_hardware import by_hardware
from app.charts.parallel import MOST_LINES, lines, parallel
from core.store.point_columns import TIMED
from core.store.point_filter import Conditions, PointFilter
from core.store.thinning import Logs

CHARTS = ("scatter", "parallel coordinates", "by hardware")
MOST_PANELS = 9
Chart = alt.LayerChart | alt.FacetChart


def show_parallel(shown: pd.DataFrame, x: Axis, y: Axis, axes: Mapping[str, Axis]) -> Chart | None:
    """Draw a line a point, from the axes that were chosen to all others; returns it, None where nothing differs."""
    others = [axis for column, axis in axes.items() if axis not in (x, y) and column in shown]
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
        f"frontier of {x.title.lower()} and {y.title.lower()}.{few}"
    )
    return chart


def show_by_hardware(
    chosen: PointFilter,
    timed: Sequence[Conditions],
    x: Axis,
    y: Axis,
    limits: dict[str, float],
    axes: dict[str, Axis],
    *,
    as_one: bool,
    logs: Logs,
) -> Chart | None:
    """Draw a panel a hardware under otherwise the chosen conditions; returns the chart, None where nothing is timed.

    Across stands a time: the chosen axis where it is one, else the median latency.
    """
    if chosen.conditions is None:
        st.info("No stage was timed here, so there is no hardware to compare.")
        return None
    across = x if x.column in TIMED else axes["p50_ms"]
    alike = [found for found in timed if _work(found) == _work(chosen.conditions)]
    first = {found.hardware: found for found in reversed(alike)}
    panels = []
    for hardware, conditions in sorted(first.items())[:MOST_PANELS]:
        points = point_data.load_points(
            replace(chosen, conditions=conditions), across.column, y.column, logs, as_one=as_one
        )
        if not points.empty:
            panels.append(annotate(points, across, y, limits, axes).assign(hardware=hardware))
    if not panels:
        st.info("No stage that the filters leave was timed under these conditions.")
        return None
    shown = pd.concat(panels, ignore_index=True)
    chart = by_hardware(shown, across, y, log_x=logs.x, log_y=logs.y)
    st.altair_chart(chart)
    st.caption(
        f"{across.title} on each hardware, under otherwise the same conditions; all panels have the same axes. Strong "
        "marks are on their panel's frontier, the palest are dominated."
    )
    return chart


def _work(conditions: Conditions) -> tuple[object, ...]:
    """What was timed, wherever."""
    return conditions.runtime, conditions.batch, conditions.length, conditions.phase
