"""What runs, what waits and why, and who works."""

from functools import partial
from typing import Any

import streamlit as st

from app import actions, data, formats, identity
from core.store.models import RunStatus

user, project = identity.user(), identity.project()
st.title("Queue")


def title_of(run: dict[str, Any]) -> str:
    """A run's number with its name, or with what it does."""
    return f"{run['id']} · {run['name'] or run['recipe']}"


def act(change: Any, *arguments: Any) -> None:
    """Do what a button asks for, or say why not."""
    try:
        change(user.id, *arguments)
    except actions.NotAllowed as refusal:
        st.toast(str(refusal), icon=":material/block:")
    data.load_queue.clear()


def cancel_button(run: dict[str, Any]) -> None:
    """Stops a run, at once while queued."""
    st.button(
        "Stopping" if run["cancel_requested"] else "Cancel",
        key=f"cancel{run['id']}",
        disabled=run["cancel_requested"] or not project.may_submit,
        on_click=partial(act, actions.cancel, [run["id"]]),
        icon=":material/cancel:",
    )


def show_running(run: dict[str, Any]) -> None:
    """A running run: how far it is, how long it takes, who computes it."""
    with st.container(border=True):
        left, right = st.columns([5, 1], vertical_alignment="center")
        with left:
            st.page_link("pages/run.py", label=f"**{title_of(run)}**", query_params={"run": str(run["id"])})
            st.progress(min(1.0, run["progress"]), text=run["progress_text"] or "starting")
            remaining = (
                f"about {formats.duration(run['seconds_left'])} left"
                if run["seconds_left"]
                else "time left not known yet"
            )
            since = formats.duration(run["now"] - run["started_at"]) if run["started_at"] else formats.NOTHING
            st.caption(
                f"{remaining} · for {since} · {run['model']} on {run['task']} · {run['owner']} · {run['worker'] or ''}"
            )
        with right:
            cancel_button(run)


def show_queued(place: int, run: dict[str, Any], waiting_for: str | None) -> None:
    """A queued run with its place, what it waits for, and the buttons that move it."""
    with st.container(border=True):
        what, top, up, down, cancel = st.columns([7, 0.8, 0.8, 0.8, 1.4], vertical_alignment="center")
        with what:
            st.page_link("pages/run.py", label=f"{place}. **{title_of(run)}**", query_params={"run": str(run["id"])})
            age = formats.ago(run["created_at"], run["now"])
            st.caption(f"{run['model']} on {run['task']} · {run['recipe']} · {run['owner']}, {age}")
            if waiting_for:
                st.caption(f":orange[:material/hourglass_top: waits for {waiting_for}]")
        moves = ((top, "top", "vertical_align_top"), (up, "up", "arrow_upward"), (down, "down", "arrow_downward"))
        for column, where, icon in moves:
            column.button(
                " ",
                key=f"{where}{run['id']}",
                icon=f":material/{icon}:",
                help=f"Move {'to the top' if where == 'top' else where}",
                disabled=not project.may_submit or (place == 1 and where != "down"),
                on_click=partial(act, actions.move, run["id"], where),
            )
        with cancel:
            cancel_button(run)


def show_worker(worker: dict[str, Any]) -> None:
    """A worker: what it does and when it was last seen."""
    seen = f"seen {formats.duration(worker['age'])} ago"
    state = f":red[:material/error: lost, {seen}]" if worker["lost"] else f":green[:material/check_circle:] {seen}"
    if worker["stopped_at"] is not None:
        state = f":gray[:material/stop_circle: stopped, {seen}]"
    doing = f"run {worker['run_id']} ({formats.percent(worker['run_progress'], 0)})" if worker["run_id"] else "idle"
    with st.container(border=True):
        st.markdown(f"**{worker['name']}** · {worker['device']} · {doing}")
        st.caption(state)
        if worker["lost"] and worker["run_id"]:
            st.caption("Its run goes back to the queue by itself and is taken up at its last stage.")


@st.fragment(run_every="2s")
def live() -> None:
    """The page's changing part."""
    runs = data.load_queue(project.id)
    running = [run for run in runs if run["status"] == RunStatus.RUNNING]
    queued = [run for run in runs if run["status"] == RunStatus.QUEUED]
    waiting = data.load_waiting()
    left, right = st.columns([3, 1], gap="large")
    with left:
        st.subheader(f"Running ({len(running)})")
        for run in running:
            show_running(run)
        if not running:
            st.caption("Nothing runs.")
        st.subheader(f"Waiting ({len(queued)})")
        for place, run in enumerate(queued, start=1):
            show_queued(place, run, waiting.get(run["id"]))
        if not queued:
            st.caption("Nothing waits.")
            st.page_link("pages/submit.py", label="Submit a run", icon=":material/add_circle:")
    with right:
        st.subheader("Workers")
        workers = data.load_workers()
        for worker in workers:
            show_worker(worker)
        if not workers:
            st.warning("No worker has reported. Start one: `slimboard worker`.", icon=":material/warning:")


live()
