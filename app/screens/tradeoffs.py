"""What can be had for what: any two quantities of every measured stage, and which one to ship under limits."""

from functools import partial

import altair as alt
import pandas as pd
import streamlit as st

from app import addressed, formats, identity, point_data
from app.charts import tradeoffs as charts
from app.charts.annotated import annotate
from app.exports import buttons, frames, html
from app.saved_views import menu as views
from app.tradeoffs_page import champions, filters, listing, progress, recommendation
from app.tradeoffs_page import views as views_of_points
from app.tradeoffs_page.plot import ACROSS, TASK, UP, plot_of, task_names
from core.store.point_filter import PointFilter

CHART = "chart"
HOW = (
    "Significant: Welch's test of the scores (and of what else has an interval) at 0.05 over the number of stages that "
    "might be better; sizes and medians of latency count as exact. Seeds of one recipe are one mark: their mean, with "
    "the t interval over the seeds or, where that is wider, the one over the test examples. The knee is the stage of "
    "the frontier that lies farthest beyond the straight line between its ends, both axes scaled to their range."
)

user, project = identity.user(), identity.project()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.title("Trade-offs")
    st.space("stretch")
    corner = st.container(width="content")

tasks = point_data.load_tasks(project.id)
if tasks.empty:
    st.info(
        "Nothing is measured yet. Submit a recipe: a model, a task, and techniques that make the model smaller or "
        "faster. A worker carries it out and measures size, score and latency after each step. What each step leaves "
        "(a stage) is a mark on this page as soon as it is measured; under your limits the best one is recommended."
    )
    st.page_link("screens/submit.py", label="Submit a first run", icon=":material/add_circle:")
    st.stop()

plot = plot_of(tasks, st.query_params)
task, axes, x, y = plot.task, plot.axes, plot.x, plot.y
task_hash, score_name = task["task_hash"], task["score_name"]
asked = addressed.text(CHART)
view = asked if asked in views_of_points.CHARTS else views_of_points.CHARTS[0]

first, second, third, fourth = st.columns(4)
with first:
    addressed.menu("Task", TASK, task_names(tasks), plot.task_name)
with second:
    addressed.menu("Across", ACROSS, plot.titles(), x.title)
with third:
    score_first = sorted(plot.titles(), key=lambda title: title != axes["score"].title)
    addressed.menu("Up", UP, score_first, y.title)
with fourth:
    addressed.menu("Chart", CHART, views_of_points.CHARTS, view)

timed = [conditions for conditions, _ in point_data.load_conditions(project.id, task_hash)]
chosen_here = filters.show(task, partial(point_data.load_kinds, project.id, task_hash), timed, axes, x, y)
limits, weights, logs, as_one = chosen_here.limits, chosen_here.weights, chosen_here.logs, chosen_here.as_one
chosen = PointFilter(
    project.id,
    task_hash,
    models=chosen_here.models,
    families=chosen_here.families,
    text=chosen_here.text,
    conditions=chosen_here.conditions,
)
settings = {
    TASK: plot.task_name,
    ACROSS: x.title,
    UP: y.title,
    CHART: view,
    **chosen_here.state,
}
with corner:
    views.show("tradeoffs", settings, user, project)
points = point_data.load_points(chosen, x.column, y.column, logs, as_one=as_one)
if points.empty:
    st.info(f"No stage that is chosen has both {x.title.lower()} and {y.title.lower()}. Choose other axes or filters.")
    st.stop()
shown = annotate(points, x, y, limits, axes)

if limits or weights:
    higher = bool(task["higher_is_better"])
    recommendation.show(chosen, limits, weights, axes, higher, score_name, points, as_one=as_one)


def show_scatter() -> tuple[alt.LayerChart, set[int]]:
    """Draw the scatter; returns it, and the stages that were clicked."""
    chart = charts.scatter(shown, x, y, limits, size=chosen_here.size, axes=axes, log_x=logs.x, log_y=logs.y)
    event = st.altair_chart(chart, on_select="rerun", selection_mode=charts.SELECTION, key="scatter")
    stood_for = int(points["n"].sum())
    kind = "recipe" if as_one else "stage"
    many = (
        f" {formats.plural(stood_for, kind)} drawn as {formats.plural(len(points), 'mark')}: neighbours are one."
        if stood_for > len(points)
        else ""
    )
    turned = f" Less {y.title.lower()} is better, so the upward axis is turned." if y.better == "less" else ""
    st.caption(
        "Full marks are on the frontier: no other is as good on both axes and better on one. Hollow ones are "
        "undecided: another is better, but none significantly. Rings mark references, bars 95 % intervals."
        f"{turned} Click marks (with shift: several) to list them below.{many}",
        help=HOW,
    )
    selected = event.selection.get(charts.SELECTION, []) if event else []
    return chart, {row["stage_id"] for row in selected}


picked_ids: set[int] = set()
chart: views_of_points.Chart | None
if view == "scatter":
    chart, picked_ids = show_scatter()
elif view == "parallel coordinates":
    chart = views_of_points.show_parallel(shown, x, y, axes)
else:
    chart = views_of_points.show_by_hardware(chosen, timed, x, y, limits, axes, as_one=as_one, logs=logs)


def every_point() -> pd.DataFrame:
    """The points behind the chart, none left out."""
    everything = annotate(point_data.read_all_points(chosen, x.column, y.column), x, y, limits, axes)
    return frames.points(everything, score_name, task["score_unit"])


chart_title = f"{project.name}: {task['task']}"
buttons.show(
    "slimboard-tradeoffs",
    [
        *buttons.tables(every_point),
        *([buttons.File("HTML", "html", "text/html", partial(html.page, chart, chart_title))] if chart else []),
    ],
    "CSV and Parquet: every point that the filters leave, with raw numbers. HTML: the chart, without network.",
)

champions.show(task_hash, user, project)
progress.show(chosen, x, y, logs)
listing.show(shown, picked_ids, x, y, axes, bounded=bool(limits))
