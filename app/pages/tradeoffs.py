"""What can be had for what: any two quantities of every measured stage, and which one to ship under limits."""

import pandas as pd
import streamlit as st

from app import data, formats, identity
from app.charts import tradeoffs as charts
from app.charts.axes import AXES, Axis, score_axis
from core.store.tradeoffs import Conditions, PointFilter

project = identity.project()
st.title("Trade-offs")

tasks = data.load_tasks(project.id)
if tasks.empty:
    st.info("Nothing is measured yet. A run's stages appear here one by one, as soon as they are measured.")
    st.page_link("pages/submit.py", label="Submit a first run", icon=":material/add_circle:")
    st.stop()

by_hash = tasks.set_index("task_hash")
names = by_hash["task"].where(~by_hash["task"].duplicated(keep=False), by_hash["task"] + " " + by_hash.index.str[:6])

first, second, third, fourth = st.columns(4)
task_hash = first.selectbox("Task", list(by_hash.index), format_func=names.get, key="task", bind="query-params")
task = by_hash.loc[task_hash]
axes = {**AXES, "score": score_axis(task["score_name"], task["score_unit"], task["higher_is_better"])}


def title_of(column: str) -> str:
    """An axis's name in a picker."""
    return axes[column].title


x = axes[second.selectbox("Across", list(axes), format_func=title_of, key="x", bind="query-params")]
upward = ["score", *(column for column in axes if column != "score")]
y = axes[third.selectbox("Up", upward, format_func=title_of, key="y", bind="query-params")]
size_column = fourth.selectbox("Mark size", [None, *axes], format_func=lambda c: title_of(c) if c else "all alike")


def condition_name(conditions: Conditions) -> str:
    """Conditions of a latency in words."""
    length = f", {conditions.length} tokens" if conditions.length else ""
    threads = f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}"
    where = f"{conditions.hardware}, {conditions.runtime}, {threads}"
    return f"{conditions.phase}, batch {conditions.batch}{length} · {where}"


timed = data.load_conditions(project.id, task_hash)
conditions = None
if timed:
    counts = {condition_name(c): (c, n) for c, n in timed}
    picked = st.selectbox(
        "Latency measured as",
        list(counts),
        format_func=lambda name: f"{name} · {counts[name][1]} stages",
        help="Only latencies measured under the same conditions share an axis.",
    )
    conditions = counts[picked][0]

points = data.load_points(PointFilter(project.id, task_hash, conditions=conditions), x.column, y.column)
if points.empty:
    st.info(f"No stage of this task has both {x.title.lower()} and {y.title.lower()}. Choose other axes.")
    st.stop()

with st.expander("Filter and limits", icon=":material/tune:"):
    left, middle, right = st.columns(3)
    families = left.multiselect("Families", sorted(points["family"].unique()), placeholder="all")
    model_names = middle.multiselect("Models", sorted(points["model"].unique()), placeholder="all")
    labels = right.text_input("Stage contains", placeholder="2:4, rtn, bf16 …")
    limit_columns = st.columns(4)
    most_mb = limit_columns[0].number_input("At most (MB)", min_value=0.0, value=None, placeholder="any size")
    most_ms = limit_columns[1].number_input("At most (ms)", min_value=0.0, value=None, placeholder="any latency")
    least = "At least" if task["higher_is_better"] else "At most"
    score_limit = limit_columns[2].number_input(
        f"{least} ({task['score_unit']})", value=None, placeholder=f"any {task['score_name']}"
    )
    log_x = limit_columns[3].toggle("Logarithmic across", value=x.log)
    log_y = limit_columns[3].toggle("Logarithmic up", value=y.log)

limits = {
    column: value * factor
    for column, value, factor in (("size_bytes", most_mb, 1e6), ("p50_ms", most_ms, 1.0), ("score", score_limit, 1.0))
    if value is not None
}
keep = points["label"].str.contains(labels, case=False, regex=False)
keep &= points["family"].isin(families) if families else True
keep &= points["model"].isin(model_names) if model_names else True
references = points["stage_id"].isin(points["reference_stage_id"].dropna())
shown = charts.annotate(points[keep | references], x, y, limits, axes)
if shown.empty:
    st.info("The filter leaves no stage. Remove a part of it.")
    st.stop()

if limits:
    best = charts.best_feasible(shown, axes["score"], y)
    if best is None:
        st.warning(
            "No stage keeps all limits. Loosen one, or queue a recipe that compresses more.", icon=":material/block:"
        )
    else:
        st.success(charts.recommendation(best, shown, axes), icon=":material/recommend:")
        st.page_link("pages/run.py", label=f"Open run {best['run_id']}", query_params={"run": str(best["run_id"])})

size_axis: Axis | None = axes[size_column] if size_column else None
chart = charts.scatter(shown, x, y, limits, size=size_axis, axes=axes, log_x=log_x, log_y=log_y)
event = st.altair_chart(chart, on_select="rerun", selection_mode=charts.SELECTION, key="scatter")
stood_for = int(points["n"].sum())
many = (
    f" {formats.count(stood_for)} stages, drawn as {len(points)} marks: neighbours are one."
    if stood_for > len(points)
    else ""
)
st.caption(
    "A ring marks the reference. Strong marks are on the frontier: no other is as good on both axes and better on one. "
    f"Bars are 95 % intervals. Click marks (with shift: several) to list them below.{many}"
)

chosen = {row["stage_id"] for row in event.selection.get(charts.SELECTION, [])} if event else set()
listed = shown[shown["stage_id"].isin(chosen)] if chosen else shown[shown["on_frontier"]]
st.subheader("Selected stages" if chosen else "On the frontier")
table = pd.DataFrame(
    {
        "run": [f"/run?run={run_id}" for run_id in listed["run_id"]],
        "stage": listed["label"],
        "technique": listed["technique"],
        "model": listed["model"],
        **{
            axis.title: [axis.read(v) if pd.notna(v) else formats.NOTHING for v in listed[column]]
            for column, axis in axes.items()
            if column in listed and listed[column].notna().any()
        },
    }
)
st.dataframe(
    table,
    hide_index=True,
    column_config={"run": st.column_config.LinkColumn("Run", display_text=r"run=(\d+)", width="small")},
)
