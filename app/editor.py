"""The draft of this browser session, and what the submit page's buttons do to it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
import yaml

from app import actions, data
from app.draft import Draft
from app.schema import starting_settings
from core.errors import Problem, SpecError
from core.spec import RunSpec

ASK_AGAIN_SECONDS = 30  # a question is lost where no worker was there in time
PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class Preset:
    """A spec to start from, with what it is good for."""

    title: str
    description: str
    text: str


def presets() -> list[Preset]:
    """The shipped presets by file name; the first comment line is the title, the following ones describe it."""
    found = []
    for file in sorted(PRESETS.glob("*.yaml")):
        text = file.read_text()
        comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        found.append(Preset(comments[0], " ".join(comments[1:]), text))
    return found


def current() -> Draft:
    """The draft that is being edited; a new session starts with the first preset."""
    if "draft" not in st.session_state:
        start_from(RunSpec.from_yaml(presets()[0].text))
    draft: Draft = st.session_state["draft"]
    return draft


def start_from(spec: RunSpec, cloned_from: int | None = None) -> None:
    """Replace the draft; every widget is drawn anew."""
    st.session_state["draft"] = Draft.of(spec, cloned_from)
    st.session_state.pop("submitted", None)


def start_from_yaml(text: str) -> None:
    """Replace the draft by a preset's spec."""
    start_from(RunSpec.from_yaml(text))


def write(attribute: str, key: str) -> None:
    """Take a widget's value into an attribute of the draft, unless the widget is of before its last redrawing."""
    if key.partition(".")[0] != str(current().generation):
        return
    value = st.session_state[key]
    setattr(current(), attribute, "" if value is None and attribute == "name" else value)


def add_step(key: str) -> None:
    """Add the chosen technique and empty the choice."""
    technique = st.session_state[key]
    if technique is not None:
        schema = data.load_catalogue().techniques[technique]["schema"]
        current().add(technique, starting_settings(schema))
        st.session_state[key] = None


def set_reference(reference: dict[str, Any] | None) -> None:
    """Name the model that the stages are compared with, or leave it to the pipeline."""
    draft = current()
    draft.reference = reference
    draft.redraw()


def keep_yaml_in_step(draft: Draft, spec: RunSpec | None) -> str:
    """Write the draft into the YAML field, unless it holds a text that cannot be read and the draft is unchanged.

    Returns the field's key, which is another one for every text that the form writes: a browser that has not
    yet drawn the new text sends the one from before with its next request, and that is no edit.
    """
    text = spec.to_yaml() if spec is not None else yaml.safe_dump(draft.to_dict(), sort_keys=False, width=100)
    if st.session_state.get("yaml_of_draft") != text:
        st.session_state["yaml_texts"] = st.session_state.get("yaml_texts", 0) + 1
        st.session_state["yaml_of_draft"] = text
        st.session_state[f"yaml.{st.session_state['yaml_texts']}"] = text
        st.session_state["yaml_problems"] = []
    return f"yaml.{st.session_state['yaml_texts']}"


def take_yaml(key: str) -> None:
    """Take the edited YAML into the draft; what cannot be read stays in the field, with the reason."""
    if key != f"yaml.{st.session_state['yaml_texts']}":
        return
    try:
        spec = RunSpec.from_yaml(st.session_state[key])
    except SpecError as error:
        st.session_state["yaml_problems"] = error.problems
        return
    cloned_from = current().cloned_from
    start_from(spec, cloned_from)
    st.session_state["yaml_of_draft"] = ""


def yaml_problems() -> list[Problem]:
    """Why the text in the YAML field is not the draft."""
    problems: list[Problem] = st.session_state.get("yaml_problems", [])
    return problems


def step_button(draft: Draft, label: str, icon: str, key: str, act: Callable[[], None], disabled: bool = False) -> None:
    """A small button of a step's card."""
    st.button(icon, key=f"{draft.generation}.{key}", help=label, type="tertiary", on_click=act, disabled=disabled)


def worker_answer(spec: RunSpec, may_ask: bool) -> None:
    """Whether the model takes this recipe, which only a worker can tell."""
    if data.load_answer(spec.hash) is not None:
        st.caption(":green[:material/check_circle: The model takes this recipe.]")
    else:
        _await_answer(spec, may_ask)


@st.fragment(run_every="2s")
def _await_answer(spec: RunSpec, may_ask: bool) -> None:
    st.caption(":material/hourglass_top: The settings are valid. A worker is asked whether the model takes them.")
    if data.load_answer(spec.hash) is not None:
        st.rerun()
    asked, at = st.session_state.get("asked", ("", 0.0))
    if may_ask and (asked != spec.hash or time.monotonic() - at > ASK_AGAIN_SECONDS):
        st.session_state["asked"] = (spec.hash, time.monotonic())
        actions.ask(spec)
