"""One widget for each kind of setting. Each writes its value into the draft in a callback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st
import yaml

from app import formats
from app.schema import Field
from core.catalogue import Catalogue
from core.errors import Problem


@dataclass(frozen=True)
class Place:
    """Where a form's values stand in the draft, and how its widgets and problems are named."""

    values: dict[str, Any]  # the live mapping in the draft
    field: str  # "recipe[0].rtn": what its problems start with
    key: str  # what its widgets' keys start with
    catalogue: Catalogue
    redraw: Callable[[], None]  # to be called where keys come to mean another value
    problems: Sequence[Problem] = ()
    runs: Sequence[tuple[int, str]] = ()  # (number, title) of the runs whose model can be used
    stages: int | None = None  # a model reference may name stage:0 to stage:<this>

    def inside(self, values: dict[str, Any], name: str) -> "Place":
        """The place of a mapping that is the value of `name` here."""
        return replace(self, values=values, field=f"{self.field}.{name}", key=f"{self.key}.{name}")

    def problem(self, name: str) -> Problem | None:
        """The first problem of a field or of what lies in it."""
        full = f"{self.field}.{name}"
        return next((p for p in self.problems if p.field == full or p.field.startswith((f"{full}[", f"{full}."))), None)


def show_problem(problem: Problem | None, name: str = "") -> None:
    """A problem, below the field that it is about; `name` says which where that cannot be seen."""
    if problem is not None:
        told = formats.plain(problem.message)
        words = f"**{formats.plain(name)}** {told}" if name else f"{told[:1].upper()}{told[1:]}".rstrip(".")
        st.markdown(f":small[:red[:material/error: {words}. {formats.plain(problem.remedy)}]]")


def draw(field: Field, place: Place) -> None:
    """The widget of one setting, and what is wrong with its value."""
    key = f"{place.key}.{field.name}"
    value = place.values.get(field.name, None if field.required else field.default)
    label = field.label + (" *" if field.required else "")
    _WIDGETS.get(field.kind, _any)(
        field, value, label=label, key=key, help=_help(field), on_change=_write, args=(place.values, field, key)
    )
    show_problem(place.problem(field.name))


def _help(field: Field) -> str | None:
    parts = [field.description, f"Allowed: {field.range}." if field.range and field.kind != "choice" else ""]
    if field.default not in (None, [], "") and not field.required:
        parts.append(f"Default: {in_words(field.default)}.")
    return "  \n".join(part for part in parts if part) or None


def in_words(value: Any) -> str:
    """A setting's value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _write(values: dict[str, Any], field: Field, key: str) -> None:
    """Take a widget's value into the draft, which leaves out what is at its default."""
    value = _PARSERS.get(field.kind, _as_it_is)(field, st.session_state[key])
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # "2", not "2.0", in the YAML; a number's schema takes both
    absent = value is None and not field.nullable
    if absent or (not field.required and value == field.default):
        values.pop(field.name, None)
    else:
        values[field.name] = value


def _as_it_is(field: Field, value: Any) -> Any:
    return value


def _integer(field: Field, value: Any, **widget: Any) -> None:
    low = field.minimum if field.minimum is not None else None if field.above is None else field.above + 1
    high = field.maximum if field.maximum is not None else None if field.below is None else field.below - 1
    whole = int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    low, high = _covering(whole, low, high)
    placeholder = "automatic" if field.nullable else "required"
    st.number_input(
        value=whole, min_value=low and int(low), max_value=high and int(high), step=1, placeholder=placeholder, **widget
    )


def _number(field: Field, value: Any, **widget: Any) -> None:
    low = field.minimum if field.minimum is not None else field.above
    high = field.maximum if field.maximum is not None else field.below
    real = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    low, high = _covering(real, low, high)
    step = 0.05 if low is not None and high is not None and high - low <= 1 else 10.0 ** _order(real)
    st.number_input(
        value=real,
        min_value=None if low is None else float(low),
        max_value=None if high is None else float(high),
        step=step,
        format="%g",
        placeholder="automatic" if field.nullable else "required",
        **widget,
    )


def _order(value: float | None) -> int:
    """Exponent of the decimal place in which a number is stepped: its own leading digit's."""
    return int(f"{value:e}".rpartition("e")[2]) if value else -1


def _covering(value: float | None, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Bounds widened to a value that pasted YAML put outside, which the validation then names."""
    if value is not None:
        low = low if low is None else min(low, value)
        high = high if high is None else max(high, value)
    return low, high


def _boolean(field: Field, value: Any, **widget: Any) -> None:
    if field.nullable:
        _choice(Field(field.name, "choice", choices=(True, False), nullable=True), value, **widget)
    else:
        st.toggle(value=bool(value), **widget)


def _choice(field: Field, value: Any, **widget: Any) -> None:
    options = list(field.choices) if value is None or value in field.choices else [*field.choices, value]
    index = options.index(value) if value in options else None
    st.selectbox(options=options, index=index, placeholder="automatic" if field.nullable else "choose", **widget)


def _choices(field: Field, value: Any, **widget: Any) -> None:
    chosen = value if isinstance(value, list) else []
    st.multiselect(options=list(dict.fromkeys([*field.choices, *chosen])), default=chosen, **widget)


def _string(field: Field, value: Any, **widget: Any) -> None:
    st.text_input(value="" if value is None else str(value), placeholder="none" if field.nullable else "", **widget)


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
