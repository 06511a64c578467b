"""The run's champions, and the form that makes one of its stages the champion of a device."""

from dataclasses import fields
from typing import Any

import pandas as pd
import streamlit as st

from app.actions import champions
from app.actions.actor import Actor
from app.components import refusal_toast
from app.queries.champions import forget_champions, load_titles
from app.text import formats
from app.text.conditions import condition_name
from app.text.stages import name_of
from core.store.champions import NotTimedError
from core.store.tradeoffs.filters import Conditions


def show(run_id: int, stages: pd.DataFrame, latencies: pd.DataFrame, actor: Actor) -> None:
    """The run's stages that are champions, and the form to name one."""
    for title in load_titles(run_id):
        words = f"**Champion** of {formats.plain(condition_name(title['device']))}: {formats.plain(title['label'])}"
        note = f" · {formats.plain(title['note'])}" if title["note"] else ""
        who = f"{formats.plain(title['user'])}, {formats.ago(title['created_at'])}"
        st.markdown(f":material/trophy: {words}  \n:small[{who}{note}]")
    places = [] if latencies.empty else sorted({int(place) for place in latencies["position"] if place >= 0})
    if not places or not actor.may_submit:
        return
    box = st.popover("Make champion", icon=":material/trophy:", key="crown", on_change="rerun")
    if box.open:
        with box:
            _show_form(run_id, stages, latencies, places, actor)


def _show_form(run_id: int, stages: pd.DataFrame, latencies: pd.DataFrame, places: list[int], actor: Actor) -> None:
    names = {int(row["position"]): name_of(row) for row in stages.to_dict("records")}
    known = {condition_name(device): device for device in map(_device, latencies.to_dict("records"))}
    with st.form("crown form", border=False):
        position = st.selectbox("Stage", places, index=len(places) - 1, format_func=lambda place: names[place])
        device = st.selectbox("Device", list(known))
        note = st.text_input("Reason", max_chars=500, placeholder="how it was tested, who approved it")
        if st.form_submit_button("Make champion", type="primary"):
            with refusal_toast.told(NotTimedError):
                champions.crown(actor, run_id, position, known[device], note)
                st.toast("Champion updated.", icon=":material/trophy:")
            forget_champions()
            st.rerun()


def _device(row: dict[str, Any]) -> Conditions:
    values = {field.name: row[field.name] for field in fields(Conditions)}
    whole = {name: None if pd.isna(values[name]) else int(values[name]) for name in ("threads", "batch", "length")}
    return Conditions(**(values | whole))
