"""The head of the run page: name, status and actions."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import streamlit as st

from app.actions import runs
from app.actions.actor import Actor
from app.components import refusal_toast
from app.components.stars import set_stars
from app.queries import run_details
from app.queries.runs import forget_runs
from app.queries.stars import load_stars
from app.screens.run.failures import find_remedy
from app.text import formats
from app.web import navigation
from core.store.models import RunStatus

Colour = Literal["gray", "blue", "green", "red", "orange"]
BADGES: dict[RunStatus, tuple[Colour, str]] = {
    RunStatus.QUEUED: ("gray", ":material/schedule:"),
    RunStatus.RUNNING: ("blue", ":material/play_circle:"),
    RunStatus.DONE: ("green", ":material/check_circle:"),
    RunStatus.FAILED: ("red", ":material/error:"),
    RunStatus.CANCELLED: ("orange", ":material/cancel:"),
}


def show_title(run: dict[str, Any], actor: Actor) -> None:
    """Name, status and buttons, which are disabled for viewers."""
    st.title(formats.plain(run["name"] or run["recipe"]), anchor=False)
    colour, icon = BADGES[run["status"]]
    with st.container(horizontal=True, vertical_alignment="center"):
        _star(run["id"], actor)
        st.badge(f"Run {run['id']}", color="gray")
        st.badge(_status(run), color=colour, icon=icon)
        for name in run["tags"]:
            st.markdown(f":violet-badge[:material/sell: {formats.plain(name)}]", width="content")
        st.space("stretch")
        _buttons(run, actor)
    st.caption(formats.plain(_facts(run)))


def show_state(run: dict[str, Any]) -> None:
    """Progress, what it waits for, or why it ended."""
    if run["status"] == RunStatus.RUNNING:
        remaining = run["seconds_left"]
        left = f"about {formats.duration(remaining)} left" if remaining else "time left unknown"
        st.progress(min(1.0, run["progress"]), text=f"{formats.plain(run['progress_text'] or 'starting')} · {left}")
    elif run["status"] == RunStatus.QUEUED:
        waits_for = run_details.load_waiting(run["id"])
        if waits_for:
            st.warning(f"Waiting for {formats.plain(waits_for)}.", icon=":material/hourglass_top:")
        else:
            st.info("Queued. A worker starts it when its turn comes.", icon=":material/schedule:")
    elif run["status"] == RunStatus.FAILED:
        failure = run["failure"]
        message = formats.plain(_shortened(run["failure_message"]))
        what = f"**Failed: {failure.value if failure else 'unknown'}.** {message[:1].upper()}{message[1:]}"
        st.error(f"{what}  \n{find_remedy(failure)}", icon=":material/error:")
    elif run["status"] == RunStatus.CANCELLED:
        st.warning("Cancelled. Finished stages are kept; requeue the run to continue.", icon=":material/cancel:")


def _status(run: dict[str, Any]) -> str:
    asked = run["cancel_requested"] and run["status"] == RunStatus.RUNNING
    return "stopping" if asked else run["status"].value


def _facts(run: dict[str, Any]) -> str:
    facts = [f"{run['model']} on {run['task']}", run["recipe"], run["owner"]]
    facts.append(f"submitted {formats.ago(run['created_at'], run['now'])}")
    if run["started_at"]:
        took = formats.duration((run["ended_at"] or run["now"]) - run["started_at"])
        facts.append(f"{'ran' if run['ended_at'] else 'running'} for {took}")
    if run["worker"]:
        facts.append(f"on {run['worker']}")
    return " · ".join(facts)


def _buttons(run: dict[str, Any], actor: Actor) -> None:
    off = not actor.may_submit
    st.page_link(
        "screens/provenance/page.py",
        label="Provenance",
        icon=":material/account_tree:",
        query_params={"of": str(run["id"])},
        width="content",
    )
    if st.button("Clone and edit", icon=":material/content_copy:", disabled=off):
        navigation.go(f"submit?clone={run['id']}")
    if run_details.is_unfinished(run):
        st.button(
            "Cancel",
            icon=":material/cancel:",
            disabled=off or run["cancel_requested"],
            on_click=act,
            args=(runs.cancel, actor, [run["id"]]),
        )
    else:
        st.button(
            "Requeue",
            icon=":material/replay:",
            disabled=off,
            on_click=act,
            args=(runs.requeue, actor, [run["id"]]),
        )
    with st.popover("Rename", icon=":material/edit:", disabled=off), st.form("rename", border=False):
        name = st.text_input("Name", run["name"], max_chars=200)
        if st.form_submit_button("Rename", type="primary"):
            act(runs.rename, actor, run["id"], name)
            st.rerun()


def act(change: Callable[..., Any], *arguments: Any) -> None:
    """Perform a button's action, or show why it is refused; then reload."""
    with refusal_toast.show_refusals():
        change(*arguments)
    run_details.forget()
    forget_runs()


def _star(run_id: int, actor: Actor) -> None:
    """The user's star, toggled by a click."""
    starred = run_id in load_stars(actor.user.id, (run_id,))
    st.button(
        "",
        icon="⭐" if starred else ":material/star:",
        help="Remove star" if starred else "Star this run; the Runs page can filter by stars",
        type="tertiary",
        key="star",
        on_click=act,
        args=(partial(set_stars, starred=not starred), actor, [run_id]),
    )


def _shortened(message: str) -> str:
    """The message's first lines; a full traceback stays in the log."""
    lines = message.strip().splitlines()
    return " ".join(lines[:3])[:600] + (" …" if len(lines) > 3 else "")
