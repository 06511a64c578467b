"""What pydantic refuses, in the words of the house. Loads no torch."""

from collections.abc import Mapping
from typing import Any

from core.errors import Problem, SpecError

_REMEDIES = {
    "extra_forbidden": "Remove it, or check its spelling.",
    "missing": "Add it.",
    "model_type": "Write a name, or a mapping as the documentation shows it.",
}
_MESSAGES = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "model_type": "is neither a name nor a mapping",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
}


def problem(error: Any, document: str, remedies: Mapping[str, str] | None = None) -> Problem:
    """One of a ValidationError's `errors()` as a Problem; `remedies` are by type of error.

    `document` ("spec") is the field's name where the whole is wrong. A validator's SpecError keeps its words.
    """
    field = ""
    for part in error["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    field = field or document
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, SpecError):
        found = raised.problems[0]
        return Problem(f"{field}.{found.field}" if found.field else field, found.value, found.message, found.remedy)
    value = "" if error["type"] == "missing" else error["input"]
    message = _MESSAGES.get(error["type"], error["msg"].removeprefix("Value error, ").lower())
    remedy = {**_REMEDIES, **(remedies or {})}.get(error["type"], "Change it to a value that is allowed.")
    return Problem(field, value, message, remedy)
