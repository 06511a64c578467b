"""The earlier runs in a spec: source model, teachers and reference. Loads no torch."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_RUN = re.compile(r"run:(\d{1,9})")
PLACES = {"model": 0, "reference": -1}  # keys of a spec that hold model references, and the position that needs them
_SPELT = "source"  # a model reference's own key; what it is for stands above it


@dataclass(frozen=True)
class NamedRun:
    """An earlier run in a spec: its number, its role ("model", "teacher" …), and the stage that needs it."""

    number: int
    role: str
    position: int  # 0: the source; n: the n-th step; -1: the reference


def list_named_runs(spec: Mapping[str, Any]) -> list[NamedRun]:
    """The runs in a spec (as written by `RunSpec.to_dict`), each role of a run once, in the order of the spec."""
    found: dict[NamedRun, None] = {}
    for key, value in spec.items():
        if key == "recipe":
            for index, step in enumerate(value):
                found |= dict.fromkeys(_named(step, "", index + 1))
        elif key in PLACES:
            found |= dict.fromkeys(_named(value, key, PLACES[key]))
    return list(found)


def _named(value: Any, role: str, position: int) -> Iterator[NamedRun]:
    """The runs in model references `run:<number>` anywhere in a value."""
    if isinstance(value, str) and (named := _RUN.fullmatch(value)):
        yield NamedRun(int(named[1]), role, position)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(inner, role if key == _SPELT else str(key), position)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, role, position)
