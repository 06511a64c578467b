"""Forms built from JSON schemas: a technique's published settings become widgets that write into a draft.

Widgets are views of the draft: each writes its value back in a callback, so that the draft is complete and validated
before the page is drawn, and each validation error appears at its field. A change that shows or hides widgets redraws
its part of the draft.
"""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.screens.submit.widgets import FormPlace, draw, show_problem
from app.text.schema import Field, list_fields, starting_settings
from core.spec.catalogue import Catalogue
from core.spec.model import OWN_DATA

COLUMNS = 3
_WIDE = ("model", "methods", "runtimes", "object")
_SCHEMES = {"hf": "Hugging Face or folder", "run": "An earlier run"}


def draw_settings(schema: Mapping[str, Any], place: FormPlace) -> None:
    """Draw a widget for each setting of a schema; values other than the default are written to the draft."""
    drawn = list_fields(schema)
    simple = [field for field in drawn if field.kind not in _WIDE]
    for start in range(0, len(simple), COLUMNS):
        for column, field in zip(st.columns(COLUMNS), simple[start : start + COLUMNS], strict=False):
            with column:
                draw(field, place)
    for field in drawn:
        if field.kind in _WIDE:
            _FORMS[field.kind](field, place)
    _stray_problems(place, {"source", *(field.name for field in drawn)})


def _stray_problems(place: FormPlace, known: set[str]) -> None:
    """Validation errors of keys without a widget, which pasted YAML may contain."""
    for problem in place.problems:
        inner = problem.field.removeprefix(f"{place.field}.")
        if inner != problem.field and inner.partition(".")[0].partition("[")[0] not in known:
            show_problem(problem, inner)


def _object_form(field: Field, place: FormPlace) -> None:
    with st.container(border=True):
        st.markdown(f"**{field.label}**", help=field.description or None)
        for nested in field.fields:
            draw(nested, place.inside(field.name))


def _methods_form(field: Field, place: FormPlace) -> None:
    """The list of methods that run inside the train step, each with its own form."""
    items = place.values.get(field.name) or []
    st.markdown("**Methods**")
    for index, item in enumerate(items):
        with st.container(border=True):
            _method_form(field, place, index, item)
    catalogue = place.catalogue
    choices = [name for name, entry in catalogue.techniques.items() if "method" in entry["forms"]]
    key = f"{place.key}.{field.name}.add"
    st.selectbox(
        "Add a method",
        choices,
        index=None,
        placeholder="Add a method: search by name or family",
        format_func=lambda name: make_title(catalogue, name),
        filter_mode="contains",
        key=key,
        on_change=place.edit,
        args=(_add_method, place, field.name, key),
        label_visibility="collapsed",
    )


def make_title(catalogue: Catalogue, name: str) -> str:
    """A technique as an option: its name, family and summary."""
    entry = catalogue.techniques[name]
    return f"{name} · {entry['family']} · {entry['summary']}"


def _method_form(field: Field, place: FormPlace, index: int, item: Any) -> None:
    name = _item_name(item)
    entry = place.catalogue.techniques.get(name)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{name}**", width="stretch")
        if entry is not None:
            st.link_button("Paper", entry["paper"], type="tertiary", icon=":material/open_in_new:")
        st.button(
            "Remove",
            icon=":material/delete:",
            type="tertiary",
            key=f"{place.key}.{field.name}[{index}].remove",
            on_click=place.edit,
            args=(_remove_method, place, field.name, index),
        )
    if entry is None:
        show_problem(place.problem(f"{field.name}[{index}]"))
        return
    st.caption(entry["summary"])
    draw_settings(entry["schema"], place.inside(field.name, index, name))


def _add_method(place: FormPlace, name: str, key: str) -> None:
    method = st.session_state[key]
    settings = starting_settings(place.catalogue.techniques[method]["schema"])
    place.put(name, [*(place.values.get(name) or []), {method: settings}])
    place.part.redraw()


def _remove_method(place: FormPlace, name: str, index: int) -> None:
    place.put(name, [item for number, item in enumerate(place.values[name]) if number != index])
    place.part.redraw()


def _runtimes_form(field: Field, place: FormPlace) -> None:
    """The runtimes used for timing, and a form for each that has settings."""
    runtimes = place.catalogue.runtimes
    items = list(place.values.get(field.name, field.default))
    chosen = list(dict.fromkeys(map(_item_name, items)))
    key = f"{place.key}.{field.name}"
    st.multiselect(
        field.label,
        options=list(dict.fromkeys([*runtimes, *chosen])),
        default=chosen,
        format_func=lambda name: f"{name} · {runtimes[name]['summary']}" if name in runtimes else name,
        key=key,
        help=field.description or None,
        on_change=place.edit,
        args=(_choose_runtimes, place, field, key),
    )
    show_problem(next((p for p in place.problems if p.field == f"{place.field}.{field.name}"), None))
    for index, name in enumerate(map(_item_name, items)):
        schema = runtimes.get(name, {}).get("schema", {})
        if not schema.get("properties"):
            show_problem(place.problem(f"{field.name}[{index}]"))
            continue
        with st.container(border=True):
            st.markdown(f"**{name}**")
            draw_settings(schema, place.inside(field.name, index, name))


def _choose_runtimes(place: FormPlace, field: Field, key: str) -> None:
    """Change the runtimes; those that remain keep their settings."""
    kept = {_item_name(item): item for item in place.values.get(field.name, field.default)}
    value = [kept.get(name, name) for name in st.session_state[key]]
    if value == field.default:
        place.leave_out(field.name)
    else:
        place.put(field.name, value)
    place.part.redraw()


def _item_name(item: Any) -> str:
    """The name in an entry of a list: `rtn` of both "rtn" and {"rtn": {"bits": 4}}."""
    return str(next(iter(item), "")) if isinstance(item, dict) else str(item)


def _model_setting(field: Field, place: FormPlace) -> None:
    """A model as a setting: none if optional, otherwise a source with its settings."""
    value = place.values.get(field.name)
    with st.container(border=True):
        if field.nullable or not field.required:
            key = f"{place.key}.{field.name}.given"
            st.toggle(
                field.label,
                value=value is not None,
                key=key,
                help=field.description or None,
                on_change=place.edit,
                args=(_give_model, place, field.name, key),
            )
        else:
            st.markdown(f"**{field.label}** *", help=field.description or None)
        if isinstance(value, (str, dict)):
            draw_model(place.inside(field.name), "Source")
        else:
            show_problem(place.problem(field.name))


def _give_model(place: FormPlace, name: str, key: str) -> None:
    if st.session_state[key]:
        place.put(name, {"source": "stage:0" if place.stages is not None else "builtin:vit"})
    else:
        place.leave_out(name)
    place.part.redraw()


def draw_model(place: FormPlace, label: str) -> None:
    """A model: its source, and the settings of the source's schema."""
    source = str(place.values.get("source", ""))
    options = [f"stage:{n}" for n in range((place.stages if place.stages is not None else -1) + 1)]
    options += list(place.catalogue.models)
    source_form(place, label, options, place.catalogue.models)
    show_problem(place.problem("source"))
    found = place.catalogue.source("models", source)
    if found is not None:
        draw_settings(found[1]["schema"], place)
    if place.values.get("recipe"):
        names = [next(iter(step)) if isinstance(step, dict) else step for step in place.values["recipe"]]
        st.caption(f"with the recipe {' → '.join(names)} (edit it in the YAML)")


def draw_task(place: FormPlace, label: str) -> None:
    """A task: its source, and the settings of the source's schema."""
    source_form(place, label, list(place.catalogue.tasks), place.catalogue.tasks)
    show_problem(place.problem("source"))
    found = place.catalogue.source("tasks", str(place.values.get("source", "")))
    if found is not None:
        draw_settings(found[1]["schema"], place)


def source_form(place: FormPlace, label: str, options: list[str], entries: Mapping[str, Any]) -> None:
    """The choice of a source, and of its file, repository or run."""
    source = str(place.values.get("source", ""))
    scheme, _, rest = source.partition(":")
    chosen = source if source in options else scheme
    options = options if chosen in options else [*options, chosen]
    key = f"{place.key}.source"
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    left.selectbox(
        label,
        options,
        index=options.index(chosen),
        format_func=_source_title,
        key=key,
        on_change=place.edit,
        args=(_choose_source, place, key),
    )
    with right:
        if chosen == "run":
            _run_choice(place, rest)
        elif chosen in entries and ":" not in chosen:
            rest_key = f"{place.key}.{chosen}.rest"
            st.text_input(
                _REST.get(chosen, "Name"),
                rest,
                key=rest_key,
                placeholder=_EXAMPLES.get(chosen, ""),
                on_change=place.edit,
                args=(_write_rest, place, chosen, rest_key),
            )
        elif chosen in entries:
            st.caption(entries[chosen]["summary"])


_REST = {"hf": "Repository or folder", "file": "File or folder inside the data folders"}
_EXAMPLES = {"hf": "facebook/opt-125m", "file": "reviews.csv"}


def _source_title(source: str) -> str:
    if source == OWN_DATA:
        return "The task's own data"
    if source == "stage:0":
        return "stage 0 of this run (the original model)"
    if source.startswith("stage:"):
        return f"stage {source.removeprefix('stage:')} of this run"
    return _SCHEMES.get(source, "A file or folder" if source == "file" else source)


def _run_choice(place: FormPlace, rest: str) -> None:
    key = f"{place.key}.run.rest"
    titles = {str(number): f"#{number} {title}" for number, title in place.runs}
    options = list(titles) if rest in titles or not rest else [rest, *titles]
    st.selectbox(
        "Run",
        options,
        index=options.index(rest) if rest in options else None,
        placeholder="a finished run",
        format_func=lambda number: titles.get(number, f"#{number}"),
        key=key,
        on_change=place.edit,
        args=(_write_rest, place, "run", key),
    )


def _choose_source(place: FormPlace, key: str) -> None:
    """Change the source; all settings are dropped, since each source has its own."""
    chosen = st.session_state[key]
    for name in list(place.values):
        place.leave_out(name)
    place.put("source", chosen if ":" in chosen or chosen == OWN_DATA else f"{chosen}:")
    place.part.redraw()


def _write_rest(place: FormPlace, scheme: str, key: str) -> None:
    place.put("source", f"{scheme}:{st.session_state[key] or ''}")


_FORMS = {"model": _model_setting, "methods": _methods_form, "runtimes": _runtimes_form, "object": _object_form}
