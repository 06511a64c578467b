"""Models and data that a user brings along, and a look at the data before it is used."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import streamlit as st

from app import formats
from app.draft import Draft
from app.widgets import show_problem
from core.errors import SpecError
from core.settings import settings
from core.spec import TaskSpec
from core.tasks.preview import Preview, preview
from core.tasks.upload import save_model_upload, save_upload

Files = Sequence[tuple[str, BinaryIO]]


def model_upload(draft: Draft) -> None:
    """Bring a model: the files that `save_pretrained` wrote, or a zip of them."""
    with st.popover("Upload a model", icon=":material/upload:"):
        files = st.file_uploader(
            "config.json, safetensors and tokenizer files, or one zip of them",
            accept_multiple_files=True,
            max_upload_size=settings().upload_mb,
            key=f"{draft.generation}.model.upload",
        )
        given = [(file.name, file) for file in files]
        if st.button("Use this model", disabled=not given, key=f"{draft.generation}.model.use"):
            _use(draft, draft.model, given, lambda files: save_model_upload(files, settings().home))


def task_upload(draft: Draft) -> None:
    """Bring data: a text, a table, or a zip of class folders of pictures."""
    with st.popover("Upload data", icon=":material/upload:"):
        file = st.file_uploader(
            "A text, a CSV or JSON Lines table with text and label, or a zip of class folders of pictures",
            type=["txt", "md", "csv", "jsonl", "zip"],
            max_upload_size=settings().upload_mb,
            key=f"{draft.generation}.task.upload",
        )
        given = [(file.name, file)] if file is not None else []
        if st.button("Use this data", disabled=not given, key=f"{draft.generation}.task.use"):
            _use(draft, draft.task, given, lambda files: save_upload(*files[0], settings().home))


def _use(draft: Draft, values: dict[str, Any], files: Files, save: Callable[[Files], str]) -> None:
    try:
        source = save(files)
    except SpecError as error:
        for problem in error.problems:
            st.error(formats.plain(f"{problem.value} {problem.message}. {problem.remedy}"), icon=":material/error:")
        return
    values.clear()
    values["source"] = source
    draft.redraw()
    st.rerun()


def task_preview(task: dict[str, Any]) -> None:
    """Counts, classes and examples of the task's data."""
    try:
        found = _preview(task)
    except SpecError as error:
        for problem in error.problems:
            show_problem(problem)
        return
    counts = " · ".join(f"{n:,} {split}" for split, n in found.counts.items())
    st.markdown(f"**{found.kind.value.capitalize()}** — {found.unit}: {counts}")
    if found.classes:
        classes = ", ".join(f"{name} ({n:,})" for name, n in list(found.classes.items())[:20])
        st.caption(f"{len(found.classes)} classes: {formats.plain(classes)}{' …' if len(found.classes) > 20 else ''}")
    for warning in found.warnings:
        st.warning(formats.plain(warning))
    _examples(found)


@st.cache_data(ttl=600, max_entries=20, show_spinner="Reading the data …")
def _preview(task: dict[str, Any]) -> Preview:
    return preview(TaskSpec.model_validate(task))


def _examples(found: Preview) -> None:
    pictures = [(item.image, item.label) for item in found.items if item.image is not None]
    with st.container(horizontal=True):
        for image, label in pictures:
            st.image(image, label, width=72)
    for item in found.items:
        if item.text is not None:
            st.text(f"{item.label}: {item.text}" if item.label else item.text)
