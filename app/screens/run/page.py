"""One run: its progress, the effect of each step, and its results."""

import streamlit as st

from app.queries import run_details
from app.screens.run import artifact, champions, details, header, notes, progress, results, sensitivity
from app.text import stages as words
from app.web import identity, navigation

actor = identity.require_actor()
asked = st.query_params.get("run", "")
run = run_details.load_run(int(asked), actor.project.id) if asked.isdecimal() else None
if run is None:
    st.title("Run")
    st.info(f"This project has no run {asked}." if asked else "The URL names no run.")
    st.page_link("screens/runs/page.py", label="All runs", icon=":material/table_rows:")
    st.stop()

run_id: int = run["id"]
st.set_page_config(page_title=f"Run {run_id} · Slimboard")
was_unfinished = run_details.is_unfinished(run)
FORMER_TABS = {"Mistakes": "Regressions"}
TABS = ("Stages", "Curves", "Log", "Layers", "Sensitivity", "Regressions", "Spec", "Artifacts", "Notes")
linked = st.query_params.get("show", st.query_params.get("tab"))
current = FORMER_TABS.get(linked or "", linked)
if current in TABS and current != st.query_params.get("tab"):  # a link of an earlier release
    navigation.go(f"run?run={run_id}&tab={current}", replace=True)
    st.stop()


@st.fragment(run_every="2s" if was_unfinished else None)
def show() -> None:
    """The whole page, reloaded every 2 s while the run is unfinished."""
    run = run_details.load_run(run_id, actor.project.id)
    assert run is not None, "runs are never deleted"
    if was_unfinished and not run_details.is_unfinished(run):
        st.session_state["ended"] = (run_id, run["status"].value)
        st.rerun()
    header.show_title(run, actor)
    header.show_state(run)
    stages = run_details.load_stages(run_id)
    latencies = words.add_conditions(run_details.load_latencies(run_id))
    conditions = list(dict.fromkeys(latencies["conditions"]))
    chosen = st.session_state.get("conditions")
    seen = chosen if chosen in conditions else next(iter(conditions), None)
    if not stages.empty:
        results.show_summary(words.add_latency(stages, latencies, seen))
    tabs = dict(zip(TABS, st.tabs(TABS, key="tab", bind="query-params"), strict=True))
    opened = next((name for name, tab in tabs.items() if tab.open), TABS[0])
    with tabs[opened]:
        if opened == "Stages":
            champions.show(run_id, stages, latencies, actor)
            results.show(stages, latencies, conditions, seen)
        elif opened == "Curves":
            progress.show_curves(run_id, stages)
        elif opened == "Log":
            progress.show_log(run_id)
        elif opened == "Layers":
            details.show_layers(stages)
        elif opened == "Sensitivity":
            sensitivity.show(run, stages, actor)
        elif opened == "Regressions":
            details.show_regressions(stages)
        elif opened == "Spec":
            details.show_spec(run)
        elif opened == "Artifacts":
            artifact.show(run, stages)
        elif opened == "Notes":
            notes.show(run, actor)


ended = st.session_state.pop("ended", None)
if ended is not None and ended[0] == run_id:
    icon = ":material/check_circle:" if ended[1] == "done" else ":material/error:"
    st.toast(f"Run {run_id} is {ended[1]}.", icon=icon, duration="long")
show()
