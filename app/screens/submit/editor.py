"""The draft of this browser session, and the actions of the Submit page on it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.actions import runs
from app.actions.actor import Actor, NotAllowed
from app.queries.catalogue import load_catalogue
from app.queries.runs import forget_runs, load_answer, load_spec
from app.screens.submit.draft import Draft, Unread
from app.screens.submit.widgets import FormPlace
from app.text import formats
from app.text.schema import starting_settings
from core.errors import Problem, SpecError
from core.spec.model import RunSpec

ASK_AGAIN_SECONDS = 30  # a request is lost if no worker takes it in time
PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class Preset:
    """A spec to start from, with a description."""

    title: str
    description: str
    text: str


def read_presets() -> list[Preset]:
    """The shipped presets by file name; the first comment line is the title, the rest the description."""
    found = []
    for file in sorted(PRESETS.glob("*.yaml")):
        text = file.read_text()
        comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        found.append(Preset(comments[0], " ".join(comments[1:]), text))
    return found


def read_draft() -> Draft:
    """The draft being edited; a new session starts with the first preset."""
    if "draft" not in st.session_state:
        _start(read_presets()[0])
    draft: Draft = st.session_state["draft"]
    return draft


def _start(preset: Preset) -> None:
    st.session_state["draft"] = Draft.of(
        RunSpec.from_yaml(preset.text), about=f"**{preset.title}.** {preset.description}"
    )


def start_from_preset(draft: Draft, key: str) -> None:
    """Replace the draft with the chosen preset, if it is still the one that was shown."""
    if draft is read_draft():
        _start(next(preset for preset in read_presets() if preset.title == st.session_state[key]))


def clone(run_id: int, project_id: int) -> None:
    """Replace the draft with an earlier run's spec."""
    found = load_spec(run_id, project_id)
    if found is None:
        st.toast(f"This project has no run {run_id}.", icon=":material/error:")
    else:
        st.session_state["draft"] = Draft.of(RunSpec.parse(found), cloned_from=run_id)


def clone_chosen(draft: Draft, key: str, project_id: int) -> None:
    """Replace the draft with the chosen run's spec, if it is still the one that was shown."""
    if draft is read_draft():
        clone(st.session_state[key], project_id)


def write(place: FormPlace, name: str, key: str) -> None:
    """Write a widget's value into the draft unchanged."""
    place.put(name, st.session_state[key])


def add_step(draft: Draft, key: str) -> None:
    """Add the chosen technique."""
    technique = st.session_state[key]
    draft.add(technique, starting_settings(load_catalogue().techniques[technique]["schema"]))


def take_yaml(draft: Draft, shown: str, key: str) -> None:
    """Make a new draft from the edited YAML; text that cannot be parsed stays in the field, with the reason.

    A field that shows a text other than the draft's belongs to an outdated page: its content is not an edit.
    """
    typed = st.session_state[key]
    if draft is not read_draft() or shown != draft.to_yaml() or typed == shown:
        return
    try:
        spec = RunSpec.from_yaml(typed)
    except SpecError as error:
        draft.unread = Unread(typed, error.problems)
    else:
        st.session_state["draft"] = Draft.of(spec, draft.cloned_from)


def submit(actor: Actor, draft: Draft, last: int | None) -> None:
    """Queue the current draft, once per click on a page that shows the `last` run."""
    catalogue = load_catalogue()
    spec, problems = draft.check(catalogue)
    if draft is not read_draft() or draft.submitted != last or draft.unread or problems or spec is None:
        return
    if load_answer(spec.hash):
        return  # the page is redrawn, with the worker's validation errors at their fields
    draft.refused = ""
    try:
        draft.submitted = runs.submit(actor, spec, catalogue, draft.cloned_from)
    except (NotAllowed, SpecError) as error:
        draft.refused = str(error)
    forget_runs()


def show_problems(problems: Sequence[Problem]) -> None:
    """The first validation errors of the draft, each with its field."""
    shown = ((formats.plain(_in_words(p.field)), formats.plain(f"{p.message}. {p.remedy}")) for p in problems[:8])
    st.error("\n\n".join(f"**{where}** {what}" for where, what in shown), icon=":material/error:")


def _in_words(field: str) -> str:
    """The field with the form's step number: "recipe[2].rtn.bits" is "step 3, rtn.bits"."""
    found = re.match(r"recipe\[(\d+)\]\.?", field)
    return field if found is None else f"step {int(found[1]) + 1}, {field[found.end() :]}".rstrip(", ")


def show_answer(spec: RunSpec, may_ask: bool) -> None:
    """Whether the recipe is compatible with the model, which only a worker can check."""
    if load_answer(spec.hash) is None:
        _await_answer(spec, may_ask)
    else:
        _show_answer(spec)


@st.fragment(run_every="2s")
def _await_answer(spec: RunSpec, may_ask: bool) -> None:
    """Wait in a separate fragment: rerunning the whole page could interrupt an upload."""
    if load_answer(spec.hash) is not None:
        _show_answer(spec)
        return
    st.caption(":material/hourglass_top: The settings are valid. A worker is checking compatibility with the model.")
    asked, at = st.session_state.get("asked", ("", 0.0))
    if may_ask and (asked != spec.hash or time.monotonic() - at > ASK_AGAIN_SECONDS):
        st.session_state["asked"] = (spec.hash, time.monotonic())
        runs.request_check(spec)


def _show_answer(spec: RunSpec) -> None:
    if problems := load_answer(spec.hash):
        show_problems(problems)
    else:
        st.caption(":green[:material/check_circle: This recipe is compatible with the model.]")
