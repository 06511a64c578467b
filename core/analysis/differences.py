"""Differences between the settings of runs: specs flattened to fields by step, with defaults filled in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.spec.catalogue import Catalogue
from core.spec.labels import READ_AS
from core.spec.model import RunSpec, StepSpec

Field = tuple[str, ...]  # ("step 2", "sr_ste", "n")
_SHOWN_ELSEWHERE = ("version", "name")


def flattened(spec: RunSpec, catalogue: Catalogue) -> dict[Field, Any]:
    """Every setting of a run by field; missing ones have the catalogue's default."""
    data = spec.model_dump(mode="json", exclude={"recipe", "model", "task", *_SHOWN_ELSEWHERE})
    fields: dict[Field, Any] = dict(
        _leaves(("model",), _source(spec.model.source, spec.model.settings, "models", catalogue))
    )
    fields |= _leaves(("task",), _source(spec.task.source, spec.task.settings, "tasks", catalogue))
    for index, step in enumerate(spec.recipe, 1):
        fields |= _step((f"step {index}",), step, catalogue)
    fields |= _leaves((), data)
    return fields


def differing(rows: Sequence[Mapping[Field, Any]]) -> dict[Field, list[Any]]:
    """The fields in which rows differ, each with its value in every row; None if a row has no such field."""
    names: dict[Field, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    values = {name: [row.get(name) for row in rows] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found[1:])}


def words(field: Field) -> str:
    """The readable name of a field: "step 2 · sr_ste · n", "step 1 · train · updates"."""
    return " · ".join(READ_AS.get(part, part) for part in field)


def _source(source: str, settings: Mapping[str, Any], kind: str, catalogue: Catalogue) -> dict[str, Any]:
    found = catalogue.source(kind, source)
    return {"source": source, **(_defaults(found[1]) if found else {}), **settings}


def _step(place: Field, step: StepSpec, catalogue: Catalogue) -> dict[Field, Any]:
    """A step's technique under its place, its settings under the technique's name, its methods likewise."""
    entry = catalogue.techniques.get(step.technique, {})
    settings = {**_defaults(entry), **step.settings}
    methods = [StepSpec.model_validate(method) for method in settings.pop("methods", None) or []]
    fields: dict[Field, Any] = {place: step.technique}
    fields |= _leaves((*place, step.technique), settings)
    for method in methods:
        own = {**_defaults(catalogue.techniques.get(method.technique, {})), **method.settings}
        fields[*place, "method", method.technique] = "yes"
        fields |= _leaves((*place, method.technique), own)
    return fields


def _defaults(entry: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = entry.get("schema", {}).get("properties", {})
    return {name: told["default"] for name, told in properties.items() if "default" in told}


def _leaves(place: Field, value: Any) -> Iterator[tuple[Field, Any]]:
    """The plain values in nested mappings by field; a list is one value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves((*place, str(key)), inner)
    else:
        yield place, value
