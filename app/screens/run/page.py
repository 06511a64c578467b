"""One run: how it goes, what each step did, and what came out."""

import streamlit as st

from app.queries import run_details
from app.screens.run import artifact, champions, details, header, notes, progress, results
from app.text import stages as words
from app.web import identity, navigation

actor = identity.actor()
asked = st.query_params.get("run", "")
run = run_details.load_run(int(asked), actor.project.id) if asked.isdecimal() else None
if run is None:
    st.title("Run")
    st.info(f"There is no run {asked} in this project." if asked else "No run is named in the address.")
    st.page_link("screens/runs/page.py", label="All runs", icon=":material/table_rows:")
    st.stop()

run_id: int = run["id"]
st.set_page_config(page_title=f"Run {run_id} · Slimboard")
was_unfinished = run_details.is_unfinished(run)
TABS = ("Stages", "Curves", "Log", "Layers", "Mistakes", "Spec", "Artifacts", "Notes")
if st.query_params.get("show") in TABS:  # what links called the tab, as Compare still calls its own
    navigation.go(f"run?run={run_id}&tab={st.query_params['show']}", replace=True)
    st.stop()


@st.fragment(run_every="2s" if was_unfinished else None)
def show() -> None:
    """The whole page: read anew every 2 s while the run is unfinished."""
    run = run_details.load_run(run_id, actor.project.id)
    assert run is not None, "runs are never deleted"
    if was_unfinished and not run_details.is_unfinished(run):
        st.session_state["ended"] = (run_id, run["status"].value)
        st.rerun()
    header.show_title(run, actor)
    header.show_state(run)
    stages = run_details.load_stages(run_id)
    latencies = words.with_conditions(run_details.load_latencies(run_id))
    conditions = list(dict.fromkeys(latencies["conditions"]))
    chosen = st.session_state.get("conditions")
    seen = chosen if chosen in conditions else next(iter(conditions), None)
    if not stages.empty:
        results.show_summary(words.with_latency(stages, latencies, seen))
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
        elif opened == "Mistakes":
            details.show_mistakes(stages)
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
