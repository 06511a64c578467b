"""Any two quantities of every measured stage against each other, and which stage to ship under limits."""

from functools import partial

import pandas as pd
import streamlit as st

from app.charts.annotated import annotate
from app.components import views_menu as views
from app.exports import buttons, frames, html
from app.queries import tradeoffs
from app.screens.tradeoffs import champions, charts, filters, history, recommendation, table
from app.screens.tradeoffs.plot import TASK, X, Y, plot_of, task_names
from app.web import identity, url_state

CHART = "chart"
actor = identity.require_actor()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.title("Trade-offs")
    st.space("stretch")
    corner = st.container(width="content")

tasks = tradeoffs.load_tasks(actor.project.id)
if tasks.empty:
    st.info(
        "No measurements yet. Submit a recipe: a model, a task, and techniques that make the model smaller or faster. "
        "A worker runs it and measures size, score and latency after each step. The model after a step is a stage, and "
        "each measured stage appears here as a mark. Set limits to get a recommendation."
    )
    st.page_link("screens/submit/page.py", label="Submit your first run", icon=":material/add_circle:")
    st.stop()

plot = plot_of(tasks, st.query_params)
task, x, y = plot.task, plot.x, plot.y
requested = url_state.text(CHART)
view = requested if requested in charts.CHARTS else charts.CHARTS[0]

with st.container(horizontal=True):
    url_state.draw_menu("Task", TASK, task_names(tasks), plot.task_name)
    url_state.draw_menu("X axis", X, plot.titles(), x.title)
    score_first = sorted(plot.titles(), key=lambda title: title != plot.axes["score"].title)
    url_state.draw_menu("Y axis", Y, score_first, y.title)
    url_state.draw_menu("Chart", CHART, charts.CHARTS, view)

timed = [conditions for conditions, _ in tradeoffs.load_conditions(actor.project.id, task["task_hash"])]
asked = filters.show(plot, partial(tradeoffs.load_kinds, actor.project.id, task["task_hash"]), timed)
chosen = asked.points_of(actor.project.id, task["task_hash"])
with corner:
    settings = {TASK: plot.task_name, X: x.title, Y: y.title, CHART: view, **asked.state}
    views.show("tradeoffs", settings, actor)
points = tradeoffs.load_points(chosen, x.column, y.column, asked.logs, as_one=asked.as_one)
if points.empty:
    st.info(f"No matching stage has both {x.words} and {y.words}. Choose other axes or filters.")
    st.stop()
shown = annotate(points, x, y, asked.limits, plot.axes)

if asked.limits or asked.weights:
    recommendation.show(chosen, asked, plot, points)

picked_ids: set[int] = set()
chart: charts.Chart | None
if view == "scatter":
    chart, picked_ids = charts.show_scatter(shown, asked, plot)
elif view == "parallel coordinates":
    chart = charts.show_parallel(shown, plot)
else:
    chart = charts.show_by_hardware(chosen, asked, plot, timed)


def list_points() -> pd.DataFrame:
    """All points behind the chart."""
    everything = annotate(tradeoffs.read_all_points(chosen, x.column, y.column), x, y, asked.limits, plot.axes)
    return frames.frame_points(everything, task["score_name"], task["score_unit"])


chart_title = f"{actor.project.name}: {task['task']}"
buttons.show(
    "slimboard-tradeoffs",
    [
        *buttons.offer_table(list_points),
        *(
            [buttons.ExportFile("HTML", "html", "text/html", partial(html.write_page, chart, chart_title))]
            if chart
            else []
        ),
    ],
    "CSV and Parquet: all points that match the filters, as raw numbers. HTML: the chart, which works offline.",
)

champions.show(task["task_hash"], actor)
history.show(chosen, x, y, asked.logs)
table.show(shown, picked_ids, plot, bounded=bool(asked.limits))
