"""The champions of a task by device, and their history, drawn when the box is opened."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.actions import champions
from app.actions.actor import Actor, NotAllowed
from app.components import row_table
from app.queries.champions import forget_champions, load_champions
from app.text import formats
from app.text.conditions import condition_name

HEADS = ("Device", "Stage", "Model", "Size", "Score", "Latency p50", "By", "When", "Note")
TEXTS = ("Device", "Stage", "Note")  # which may be long


def show(task_hash: str, actor: Actor) -> None:
    """An expander with the champions; members may remove a champion."""
    box = st.expander("Champions", icon=":material/trophy:", key="champions", on_change="rerun")
    if not box.open:
        return  # its tables take time to draw
    with box:
        now, history = load_champions(actor.project.id, task_hash)
        if not history:
            st.info("No champions yet. Make a stage the champion of a device on a run's page, under Stages.")
            return
        if now:
            _table(now, "champions now", "Champions")
        else:
            st.info("No device has a champion at the moment.")
        if now and actor.may_submit:
            _show_dethrone(now, task_hash, actor)
        if len(history) > len(now):
            st.markdown("**History**")
            _table(history, "champions before", "Champion history")


def _table(entries: list[dict[str, Any]], key: str, caption: str) -> None:
    columns = [
        row_table.Column("Run", link="run?run="),
        *(row_table.Column(head, wraps=head in TEXTS) for head in HEADS),
    ]
    rows = [row_table.Row(entry["run_id"] or 0, _cells(entry)) for entry in entries]
    row_table.show(columns, rows, key=key, caption=caption)


def _cells(entry: Mapping[str, Any]) -> list[str]:
    added = [entry["user"], formats.moment(entry["created_at"]), entry["note"] or formats.NOTHING]
    device = condition_name(entry["device"])
    if entry["stage_id"] is None:
        return [formats.NOTHING, device, "champion removed", *[formats.NOTHING] * 4, *added]
    return [
        str(entry["run_id"]),
        device,
        entry["label"],
        entry["model"],
        formats.size(entry["size_bytes"]),
        formats.score(entry["score"], entry["score_unit"]),
        formats.milliseconds(entry["p50_ms"]),
        *added,
    ]


def _show_dethrone(now: list[dict[str, Any]], task_hash: str, actor: Actor) -> None:
    titles = {condition_name(entry["device"]): entry["device"] for entry in now}
    with st.popover("Remove a champion", icon=":material/remove_moderator:"), st.form("dethrone", border=False):
        device = st.selectbox("Device", list(titles))
        note = st.text_input("Reason", max_chars=500)
        if st.form_submit_button("Remove", type="primary"):
            try:
                champions.dethrone(actor, task_hash, titles[device], note)
            except NotAllowed as refusal:
                st.toast(str(refusal), icon=":material/block:")
            forget_champions()
            st.rerun()
