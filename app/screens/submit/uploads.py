"""Uploads of models and data, and a preview of the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import streamlit as st

from app.screens.submit import editor
from app.screens.submit.draft import Draft, DraftPart
from app.screens.submit.widgets import show_problem
from app.text import formats
from core.errors import SpecError
from core.settings import settings
from core.spec.model import TaskSpec
from core.tasks.preview import Preview, load_preview
from core.tasks.upload import save_data_uploads, save_model_upload

Files = Sequence[tuple[str, BinaryIO]]


def draw_model_upload(draft: Draft) -> None:
    """Upload a model: the files written by `save_pretrained`, or a zip of them."""
    with _form("Upload a model", "Use this model", "model", draft.model, _save_model) as key:
        st.file_uploader(
            "config.json, safetensors and tokenizer files, or a zip of them",
            accept_multiple_files=True,
            max_upload_size=settings().upload_mb,
            key=key,
        )


def draw_task_upload(draft: Draft) -> None:
    """Upload data: a text, a table, or a zip with one folder of images per class."""
    with _form("Upload data", "Use this data", "task", draft.task, _save_data) as key:
        st.file_uploader(
            "A text file, a CSV or JSON Lines table with text and label columns, or a zip with one folder of images "
            "per class. Splits in separate files are recognized by names with train, validation or test.",
            type=["txt", "md", "csv", "tsv", "jsonl", "ndjson", "zip"],
            accept_multiple_files=True,
            max_upload_size=settings().upload_mb,
            key=key,
        )


def _save_model(files: Files) -> dict[str, str]:
    return {"source": save_model_upload(files, settings().home)}


def _save_data(files: Files) -> dict[str, str]:
    return save_data_uploads(files, settings().home)


@contextmanager
def _form(title: str, label: str, name: str, part: DraftPart, save: Callable[[Files], dict[str, str]]) -> Iterator[str]:
    """A form around an uploader, whose key it yields: the files arrive with the click, without a rerun in between.

    If the page reruns at that moment, Streamlit does not tell the browser where to send a file.
    """
    key = f"{part.edition}.{name}.upload"
    with st.expander(title, icon=":material/upload:", key=f"{key}.open"):
        with st.form(f"{key}.form", border=False):
            yield key
            st.form_submit_button(label, on_click=_use, args=(key, name, save))
        for problem in st.session_state.get(f"{key}.problems", ()):
            text = f"{problem.value} {problem.message}. {problem.remedy}".lstrip()
            st.error(formats.plain(text), icon=":material/error:")


def _use(key: str, name: str, save: Callable[[Files], dict[str, str]]) -> None:
    """Save the upload and make it the draft's model or task; errors appear below the uploader."""
    files = [(file.name, file) for file in st.session_state[key] or []]
    try:
        if not files:
            raise SpecError.of(name, "", "No file selected", "Select a file first.")
        values = save(files)
    except SpecError as error:
        st.session_state[f"{key}.problems"] = error.problems
        return
    draft = editor.read_draft()
    part: DraftPart = getattr(draft, name)
    part.values = dict(values)
    part.redraw()
    draft.unread = None


def draw_task_preview(task: Mapping[str, Any]) -> None:
    """Counts, classes and examples of the task's data."""
    try:
        found = _preview(dict(task))
    except SpecError as error:
        for problem in error.problems:
            show_problem(problem)
        return
    counts = " · ".join(f"{n:,} {split}" for split, n in found.counts.items())
    st.markdown(f"**{found.kind.value.capitalize()}** — {found.unit}: {counts}")
    if found.classes:
        classes = ", ".join(f"{name} ({n:,})" for name, n in list(found.classes.items())[:20])
        st.caption(f"{len(found.classes)} classes: {formats.plain(classes)}{' …' if len(found.classes) > 20 else ''}")
    if found.guesses:
        right = ", ".join(f"{way}: {share:.1f} %" for way, share in found.guesses.items())
        st.caption(f"Chance accuracy, guessing {formats.plain(right)}")
    for warning in found.warnings:
        st.warning(formats.plain(warning))
    _examples(found)


@st.cache_data(ttl=600, max_entries=20, show_spinner="Reading the data …")
def _preview(task: dict[str, Any]) -> Preview:
    return load_preview(TaskSpec.model_validate(task))


def _examples(found: Preview) -> None:
    pictures = [(item.image, item.label) for item in found.items if item.image is not None]
    with st.container(horizontal=True):
        for image, label in pictures:
            st.image(image, label, width=72)
    for item in found.items:
        if item.text is not None:
            st.text(f"{item.label}: {item.text}" if item.label else item.text)
