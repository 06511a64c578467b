"""Notes and tags of a run: what people say of it."""

import streamlit as st

from app import actions, formats, run_data
from app.identity import Project, User
from app.run_page.header import act


def show(run_id: int, user: User, project: Project) -> None:
    """The notes with their authors, and fields to add a note or a tag."""
    off = not project.may_submit
    for note in run_data.load_notes(run_id):
        with st.chat_message("user"):
            st.markdown("  \n".join(map(formats.plain, note["text"].splitlines())))
            st.caption(f"{formats.plain(note['author'])}, {formats.ago(note['created_at'])}")
    with st.form("note", border=False, clear_on_submit=True):
        text = st.text_area("Add a note", placeholder="what you learnt from this run", disabled=off)
        if st.form_submit_button("Add", disabled=off) and text.strip():
            act(actions.annotate, user.id, run_id, text)
            st.rerun()
    with st.form("tag", border=False, clear_on_submit=True):
        name = st.text_input("Add a tag", max_chars=60, disabled=off, placeholder="ship, baseline …")
        if st.form_submit_button("Tag", disabled=off) and name.strip():
            act(actions.tag, user.id, run_id, name)
            st.rerun()
