"""Running runs, queued runs and what they wait for, and workers."""

from functools import partial
from typing import Any

import streamlit as st

from app.actions import runs as actions
from app.components import refusal_toast
from app.queries.runs import load_queue, load_waiting
from app.queries.system import load_workers
from app.text import formats
from app.text import workers as worker_words
from app.web import identity
from core.store.models import RunStatus

SHOWN = 40  # queued runs; each is a card with buttons

actor = identity.require_actor()
st.title("Queue")


def make_title(run: dict[str, Any]) -> str:
    """A run's number with its name, or its recipe if it has none, as Markdown."""
    return f"{run['id']} · {formats.plain(run['name'] or run['recipe'])}"


def act(change: Any, *arguments: Any) -> None:
    """Perform a button's action, or show why it is refused."""
    with refusal_toast.show_refusals():
        change(actor, *arguments)
    load_queue.clear()


def draw_button(label: str, icon: str, key: str, disabled: bool, change: Any, *arguments: Any) -> None:
    """An icon button; its label is the tooltip."""
    off = disabled or not actor.may_submit
    change_it = partial(act, change, *arguments)
    st.button(f":material/{icon}:", key=key, help=label, type="tertiary", disabled=off, on_click=change_it)


def cancel_button(run: dict[str, Any]) -> None:
    """Cancel a run; a queued one stops at once."""
    asked = run["cancel_requested"]
    draw_button("Stopping" if asked else "Cancel", "cancel", f"cancel.{run['id']}", asked, actions.cancel, [run["id"]])


def show_running(run: dict[str, Any]) -> None:
    """A running run: its progress, time left and worker."""
    seconds = run["seconds_left"]
    left = f"about {formats.duration(seconds)} left" if seconds else "time left unknown"
    since = formats.duration(run["now"] - run["started_at"]) if run["started_at"] else formats.NOTHING
    facts = [left, f"running for {since}", f"{run['model']} on {run['task']}", run["owner"], run["worker"] or ""]
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch", gap="small"):
            st.page_link("screens/run/page.py", label=f"**{make_title(run)}**", query_params={"run": str(run["id"])})
            st.progress(min(1.0, run["progress"]), text=formats.plain(run["progress_text"] or "starting"))
            st.caption(formats.plain(" · ".join(filter(None, facts))))
        if run["cancel_requested"]:
            st.caption("stopping", width="content")
        cancel_button(run)


def show_queued(place: int, last: bool, run: dict[str, Any], waits_for: str) -> None:
    """A queued run with its position, what it waits for, and buttons to move it."""
    age = formats.ago(run["created_at"], run["now"])
    facts = f"{run['model']} on {run['task']} · {run['recipe']} · {run['owner']}, {age}"
    with st.container(border=True, horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{place}**", width="content")
        with st.container(width="stretch", gap=None):
            st.page_link("screens/run/page.py", label=f"**{make_title(run)}**", query_params={"run": str(run["id"])})
            st.caption(formats.plain(facts))
            if waits_for:
                st.caption(f":orange[:material/hourglass_top: waiting for {formats.plain(waits_for)}]")
        number = run["id"]
        draw_button("Move to the top", "vertical_align_top", f"top.{number}", place == 1, actions.move, number, "top")
        draw_button("Move up", "arrow_upward", f"up.{number}", place == 1, actions.move, number, "up")
        draw_button("Move down", "arrow_downward", f"down.{number}", last, actions.move, number, "down")
        cancel_button(run)


def show_worker(worker: dict[str, Any]) -> None:
    """A worker: what it is doing and when it was last seen."""
    seen = f"seen {formats.duration(worker['age'])} ago"
    state = f":red[:material/error: lost, {seen}]" if worker["lost"] else f":green[:material/check_circle:] {seen}"
    if worker["stopped_at"] is not None:
        state = f":gray[:material/stop_circle: stopped, {seen}]"
    facts = [f"**{formats.plain(worker['name'])}**", worker["device"], worker_words.describe_activity(worker)]
    with st.container(border=True):
        st.markdown(" · ".join(fact for fact in facts if fact != formats.NOTHING))
        st.caption(state)
        if worker["lost"] and worker["run_id"]:
            st.caption("Its run returns to the queue automatically and resumes after its last finished stage.")


@st.fragment(run_every="2s")
def draw_live() -> None:
    """The part of the page that updates itself."""
    runs = load_queue(actor.project.id)
    running = [run for run in runs if run["status"] == RunStatus.RUNNING]
    queued = [run for run in runs if run["status"] == RunStatus.QUEUED]
    waiting = load_waiting()
    left, right = st.columns([3, 1], gap="large")
    with left:
        st.subheader(f"Running ({len(running)})", anchor=False)
        for run in running:
            show_running(run)
        if not running:
            st.caption("No runs in progress.")
        st.subheader(f"Queued ({len(queued)})", anchor=False)
        reasons = {waiting.get(run["id"], "") for run in queued}
        common = reasons.pop() if len(reasons) == 1 and len(queued) > 1 else ""
        if common:
            st.warning(f"All queued runs are waiting for {formats.plain(common)}.", icon=":material/hourglass_top:")
        for place, run in enumerate(queued[:SHOWN], start=1):
            show_queued(place, place == len(queued), run, "" if common else waiting.get(run["id"], ""))
        if len(queued) > SHOWN:
            st.page_link(
                "screens/runs/page.py",
                label=f"{formats.count(len(queued) - SHOWN)} more queued runs",
                query_params={"status": "queued", "sort": "oldest"},
            )
        if not queued:
            st.caption("The queue is empty.")
            st.page_link("screens/submit/page.py", label="Submit a run", icon=":material/add_circle:")
    with right:
        st.subheader("Workers", anchor=False)
        workers = load_workers()
        for worker in workers:
            show_worker(worker)
        if not workers:
            st.warning("No workers. Start one with `slimboard worker`.", icon=":material/warning:")


draw_live()
