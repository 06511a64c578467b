"""The preflight check of a spec. Executed in a separate process, because it loads torch."""

from typing import Any

from core.engine.pipeline import check
from core.errors import Problem, SpecError
from core.spec.model import RunSpec


def find_problems(spec: dict[str, Any]) -> list[Problem]:
    """All problems of a spec, found by building its model without weights; empty if there are none."""
    try:
        check(RunSpec.parse(spec))
    except SpecError as error:
        return [Problem(p.field, _plain(p.value), p.message, p.remedy) for p in error.problems]
    return []


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
