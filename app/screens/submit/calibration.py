"""The form of the data that steps calibrate with: sources with their weights, and how much is drawn of them."""

from typing import Any

import streamlit as st

from app.screens.submit.forms import draw_settings, source_form
from app.screens.submit.widgets import FormPlace, draw, show_problem
from app.text.schema import list_fields
from core.spec.model import OWN_DATA, CalibrationSource, CalibrationSpec

MOST_SOURCES = 8
SOURCES = "sources"
ABOUT = (
    "Steps such as wanda and sparsegpt look at these examples, by default some of the task's training data. "
    "Runs that differ only in their sources or seed here count as replicates of one recipe."
)


def draw_calibration(place: FormPlace) -> None:
    """Draw the sources, and the number, length and seed of the examples."""
    st.caption(ABOUT)
    sources: list[Any] = place.values.get(SOURCES) or []
    for index in range(len(sources)):
        with st.container(border=True):
            _source(place, index, is_mix=len(sources) > 1)
    with st.container(horizontal=True):
        words = "Add a source" if sources else "Choose other data"
        if len(sources) < MOST_SOURCES:
            st.button(words, key=f"{place.key}.add", on_click=place.edit, args=(_add, place))
    simple = [field for field in list_fields(CalibrationSpec.model_json_schema()) if field.name != SOURCES]
    for column, field in zip(st.columns(len(simple)), simple, strict=True):
        with column:
            draw(field, place)
    if not sources:
        show_problem(place.problem(SOURCES))


def _source(place: FormPlace, index: int, *, is_mix: bool) -> None:
    inside = place.inside(SOURCES, index)
    source_form(inside, "Source", [OWN_DATA, *place.catalogue.tasks], place.catalogue.tasks)
    show_problem(inside.problem("source"))
    if is_mix:
        properties = CalibrationSource.model_json_schema()["properties"]
        draw(list_fields({"properties": {"weight": properties["weight"]}})[0], inside)
    found = place.catalogue.source("tasks", str(inside.values.get("source", "")))
    if found is not None:
        with st.expander("Settings of the source", key=f"{inside.key}.settings"):
            draw_settings(found[1]["schema"], inside)
    args = (_remove, place, index)
    st.button(
        "Remove", icon=":material/delete:", type="tertiary", key=f"{inside.key}.remove", on_click=place.edit, args=args
    )


def _add(place: FormPlace) -> None:
    sources = place.values.get(SOURCES) or []
    place.put(SOURCES, [*sources, {"source": "file:"}])
    place.part.redraw()


def _remove(place: FormPlace, index: int) -> None:
    kept = [item for number, item in enumerate(place.values[SOURCES]) if number != index]
    if kept:
        place.put(SOURCES, kept)
    else:
        place.leave_out(SOURCES)
    place.part.redraw()
