"""How the frontier was won over time, drawn when it is opened."""

import streamlit as st

from app.charts.axes import Axis
from app.charts.history import history, steps
from app.queries import tradeoffs
from core.store.tradeoffs.filters import PointFilter
from core.store.tradeoffs.thinning import Logs


def show(chosen: PointFilter, x: Axis, y: Axis, logs: Logs) -> None:
    """A closed box that holds the chart."""
    box = st.expander("Who moved the frontier", icon=":material/show_chart:", key="progress", on_change="rerun")
    if not box.open:
        return  # it reads every point
    moved = steps(tradeoffs.load_history(chosen, x.column, y.column), x, y, log_x=logs.x, log_y=logs.y)
    makers = tradeoffs.load_makers(chosen.project_id, tuple(moved["stage_id"].tolist()))
    box.altair_chart(history(moved, makers, x, y), width="stretch")
    box.caption(
        "The share of the chart's area that the frontier has won (its hypervolume). The area lies between the best and "
        "the worst value of each axis that any stage had, as the axes are drawn. Each mark is a stage that moved "
        "the frontier."
    )
