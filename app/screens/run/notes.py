"""Notes and tags of a run."""

from typing import Any

import streamlit as st

from app.actions import annotations
from app.actions.actor import Actor
from app.queries import run_details
from app.screens.run.header import act
from app.text import formats, markdown

LONGEST_NOTE = 20_000


def show(run: dict[str, Any], actor: Actor) -> None:
    """The notes with their authors, the tags, and forms to add to both."""
    run_id, off = run["id"], not actor.may_submit
    for note in run_details.load_notes(run_id):
        with st.chat_message("user"):
            st.html(markdown.html(note["text"]))
            st.caption(f"{formats.plain(note['author'])}, {formats.ago(note['created_at'])}")
    with st.form("note", border=False, clear_on_submit=True):
        text = st.text_area(
            "Add a note",
            max_chars=LONGEST_NOTE,
            placeholder="What did you learn from this run? Markdown: **bold**, `code`, - lists, [links](https://…)",
            disabled=off,
        )
        if st.form_submit_button("Add", disabled=off) and text.strip():
            act(annotations.annotate, actor, run_id, text)
            st.rerun()
    if run["tags"]:
        with st.container(horizontal=True):
            for name in run["tags"]:
                st.button(
                    formats.plain(name),
                    icon=":material/close:",
                    help="Remove this tag",
                    disabled=off,
                    key=f"untag {name}",
                    on_click=act,
                    args=(annotations.untag, actor, run_id, name),
                )
    with st.form("tag", border=False, clear_on_submit=True):
        name = st.text_input("Add a tag", max_chars=60, disabled=off, placeholder="ship, baseline …")
        if st.form_submit_button("Add tag", disabled=off) and name.strip():
            act(annotations.tag, actor, run_id, name)
            st.rerun()
