"""How the Pareto frontier advanced over time, drawn when the box is opened."""

import streamlit as st

from app.charts.axes import Axis
from app.charts.history import draw_history, list_steps
from app.queries import tradeoffs
from core.store.tradeoffs.filters import PointFilter
from core.store.tradeoffs.thinning import Logs


def show(chosen: PointFilter, x: Axis, y: Axis, logs: Logs) -> None:
    """An expander with the chart."""
    box = st.expander("Frontier history", icon=":material/show_chart:", key="progress", on_change="rerun")
    if not box.open:
        return  # it reads every point
    moved = list_steps(tradeoffs.load_history(chosen, x.column, y.column), x, y, log_x=logs.x, log_y=logs.y)
    makers = tradeoffs.load_makers(chosen.project_id, tuple(moved["stage_id"].tolist()))
    box.altair_chart(draw_history(moved, makers, x, y), width="stretch")
    box.caption(
        "The hypervolume of the Pareto frontier: the share of the chart's area that it dominates. The area spans the "
        "best to the worst value of any stage on each axis, scaled as drawn. Each mark is a stage that advanced the "
        "frontier."
    )
