"""One widget for each kind of setting. Each writes its value into the draft in a callback.

Number fields have no bounds: a browser does not send values out of bounds, and the run would use the previous value.
The draft takes what was typed; its validation names the range and disables Submit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st
import yaml

from app.screens.submit.draft import Draft, DraftPart
from app.text import formats
from app.text.schema import Field, in_words
from core.errors import Problem
from core.spec.catalogue import Catalogue
from core.spec.labels import READ_AS


@dataclass(frozen=True)
class FormPlace:
    """The place of a form's values in the draft, and the names of its widgets and validation errors."""

    draft: Draft
    part: DraftPart
    edition: int  # of the part, when this form was drawn
    name: str  # "model", "rtn": part of its widgets' keys
    field: str  # "recipe[0].rtn": prefix of its validation errors
    catalogue: Catalogue
    problems: Sequence[Problem] = ()
    runs: Sequence[tuple[int, str]] = ()  # (number, title) of runs whose model can be used
    stages: int | None = None  # a model may be stage:0 to stage:<this>
    path: tuple[str | int, ...] = ()  # from the part's values to the mapping of this form

    @property
    def key(self) -> str:
        """Prefix of its widgets' keys."""
        return f"{self.edition}.{self.name}"

    @property
    def values(self) -> Mapping[str, Any]:
        """The current mapping in the draft; empty if there is none, with a bare source name as a mapping."""
        found: Any = self.part.values
        for step in self.path:
            found = found[step] if isinstance(step, int) else _mapping(found).get(step)
        return _mapping(found)

    def inside(self, *path: str | int) -> "FormPlace":
        """The place of a mapping in this one: `inside("methods", 0, "sr_ste")`."""
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        return replace(self, name=self.name + name, field=self.field + name, path=self.path + path)

    def problem(self, name: str) -> Problem | None:
        """The first validation error of a field or of anything inside it."""
        full = f"{self.field}.{name}"
        return next((p for p in self.problems if p.field == full or p.field.startswith((f"{full}[", f"{full}."))), None)

    def edit(self, act: Callable[..., None], *args: Any) -> None:
        """A widget's callback: call `act`, unless the form has been redrawn since."""
        self.part.edit(self.edition, self._edit, act, args)

    def _edit(self, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        act(*args)
        self.draft.unread = None

    def put(self, name: str, value: Any) -> None:
        """Write a value into the draft."""
        self._live()[name] = value

    def leave_out(self, name: str) -> None:
        """Remove a value from the draft, so that its default applies."""
        if name in self.values:
            del self._live()[name]

    def _live(self) -> dict[str, Any]:
        """The mapping in the draft, created if missing."""
        found: Any = self.part.values
        for step in self.path:
            if isinstance(step, int):
                found[step] = {found[step]: {}} if isinstance(found[step], str) else found[step]
            elif not isinstance(found.get(step), list):
                found[step] = _mapping(found.get(step))
            found = found[step]
        live: dict[str, Any] = found
        return live


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"source": value}
    return value if isinstance(value, dict) else {}


def show_problem(problem: Problem | None, name: str = "") -> None:
    """A validation error, below its field; `name` is the field if that is not obvious."""
    if problem is not None:
        message = formats.plain(problem.message)
        words = f"**{formats.plain(name)}** {message}" if name else f"{message[:1].upper()}{message[1:]}".rstrip(".")
        st.markdown(f":small[:red[:material/error: {words}. {formats.plain(problem.remedy)}]]")


def draw(field: Field, place: FormPlace) -> None:
    """The widget of one setting, and its validation error."""
    key = f"{place.key}.{field.name}"
    value = place.values.get(field.name, None if field.required else field.default)
    label = field.label + (" *" if field.required else "")
    if field.kind in ("integer", "number") and field.range:
        label += f" :small[:gray[{_in_symbols(field.range)}]]"
    _WIDGETS.get(field.kind, _any)(
        field, value, label=label, key=key, help=_help(field), on_change=place.edit, args=(_write, place, field, key)
    )
    show_problem(place.problem(field.name))


def _in_symbols(bounds: str) -> str:
    """A range short enough for a label: "> 0, ≤ 16"."""
    for words, symbol in (("at least", "≥"), ("at most", "≤"), ("above", "\\>"), ("below", "<")):
        bounds = bounds.replace(words, symbol)
    return bounds


def _help(field: Field) -> str | None:
    parts = [field.description, f"Allowed: {field.range}." if field.range and field.kind != "choice" else ""]
    if field.default not in (None, [], "") and not field.required:
        parts.append(f"Default: {in_words(field.default)}.")
    if field.name in READ_AS:
        parts.append(f"In YAML: {field.name}.")
    return "  \n".join(part for part in parts if part) or None


def _write(place: FormPlace, field: Field, key: str) -> None:
    """Write a widget's value into the draft, which omits defaults."""
    value = _PARSERS.get(field.kind, _as_it_is)(field, st.session_state[key])
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # "2", not "2.0", in the YAML; a number's schema takes both
    absent = value is None and not field.nullable
    if absent or (not field.required and value == field.default):
        place.leave_out(field.name)
    else:
        place.put(field.name, value)


def _as_it_is(field: Field, value: Any) -> Any:
    return value


def _integer(field: Field, value: Any, **widget: Any) -> None:
    whole = int(value) if _is_finite(value) else None
    st.number_input(value=whole, step=1, placeholder=field.when_empty, **widget)


def _number(field: Field, value: Any, **widget: Any) -> None:
    real = float(value) if _is_finite(value) else None
    low = field.minimum if field.minimum is not None else field.above
    high = field.maximum if field.maximum is not None else field.below
    step = 0.05 if low is not None and high is not None and high - low <= 1 else 10.0 ** _order(real)
    st.number_input(value=real, step=step, format="%g", placeholder=field.when_empty, **widget)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _order(value: float | None) -> int:
    """Exponent of the step of a number field: that of the value's leading digit."""
    return int(f"{value:e}".rpartition("e")[2]) if value else -1


def _boolean(field: Field, value: Any, **widget: Any) -> None:
    if field.nullable:
        _choice(replace(field, kind="choice", choices=(True, False)), value, **widget)
    else:
        st.toggle(value=bool(value), **widget)


def _choice(field: Field, value: Any, **widget: Any) -> None:
    options = list(field.choices) if value is None or value in field.choices else [*field.choices, value]
    index = options.index(value) if value in options else None
    placeholder = field.when_empty if field.nullable else "choose"
    st.selectbox(options=options, index=index, placeholder=placeholder, **widget)


def _choices(field: Field, value: Any, **widget: Any) -> None:
    chosen = value if isinstance(value, list) else []
    st.multiselect(options=list(dict.fromkeys([*field.choices, *chosen])), default=chosen, **widget)


def _string(field: Field, value: Any, **widget: Any) -> None:
    placeholder = field.when_empty if field.nullable else ""
    st.text_input(value="" if value is None else str(value), placeholder=placeholder, **widget)


def _list(field: Field, value: Any, **widget: Any) -> None:
    shown = ", ".join(map(in_words, value)) if isinstance(value, list) else "" if value is None else str(value)
    st.text_input(value=shown, placeholder="separated by commas", **widget)


def _any(field: Field, value: Any, **widget: Any) -> None:
    shown = "" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    st.text_input(value=shown, placeholder="as in YAML", **widget)


def _parse_list(field: Field, text: str) -> list[Any] | None:
    if not text.strip():
        return None if field.nullable else []
    convert = {"integer": int, "number": float}.get(field.item, str)
    return [_converted(part.strip(), convert) for part in text.split(",") if part.strip()]


def _converted(part: str, convert: type) -> Any:
    try:
        return convert(part)
    except ValueError:
        return part  # the validation names it


def _parse_any(field: Field, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


_WIDGETS = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "choice": _choice,
    "choices": _choices,
    "string": _string,
    "list": _list,
}
_PARSERS = {
    "list": _parse_list,
    "any": _parse_any,
    "string": lambda field, text: text if text or not field.nullable else None,
}
