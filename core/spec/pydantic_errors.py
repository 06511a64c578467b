"""Translates pydantic's validation errors to `Problem`s. Loads no torch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from core.errors import Problem, SpecError, nearest

_REMEDIES = {
    "extra_forbidden": "Remove it, or check its spelling.",
    "missing": "Add it.",
    "model_type": "Write a name or a mapping, as in the documentation.",
}
_MESSAGES = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "model_type": "is neither a name nor a mapping",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
}


_INPUT = "Input should be "


def list_problems(
    error: ValidationError,
    *,
    whole: str,
    inside: str = "",
    remedies: Callable[[tuple[int | str, ...]], Mapping[str, str]] = lambda location: {},
    settings: Iterable[str] = (),
) -> list[Problem]:
    """Every error as a Problem.

    `whole` ("spec") is the field if the whole document is wrong, and `inside` ("task") is put before each field.
    `remedies` gives remedies by location and pydantic error type; for an unknown key, the nearest of
    `settings` is suggested. A SpecError raised by a validator keeps its message.
    """
    return [_problem(each, whole, inside, remedies(each["loc"]), list(settings)) for each in error.errors()]


def _problem(error: Any, whole: str, inside: str, remedies: Mapping[str, str], settings: list[str]) -> Problem:
    field = _field(inside, error["loc"]) or whole
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, SpecError):
        found = raised.problems[0]
        return Problem(f"{field}.{found.field}" if found.field else field, found.value, found.message, found.remedy)
    kind = error["type"]
    value = "" if kind == "missing" else error["input"]
    remedy = remedies.get(kind) or _REMEDIES.get(kind, "Change it to an allowed value.")
    if kind == "extra_forbidden" and settings:
        remedy = nearest(str(error["loc"][-1]), settings)
    return Problem(field, value, _MESSAGES.get(kind) or _in_our_words(error["msg"]), remedy)


def _field(inside: str, location: Iterable[int | str]) -> str:
    field = inside
    for part in location:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    return field


def _in_our_words(message: str) -> str:
    """Pydantic's message as a predicate of the field: "must be less than or equal to 8"."""
    text = message.removeprefix("Value error, ")
    return f"must be {text.removeprefix(_INPUT)}" if text.startswith(_INPUT) else text[:1].lower() + text[1:]
