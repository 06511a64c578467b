"""A settings class's JSON schema as a list of form fields. Without Streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.spec import labels

MISSING = object()
"""Default of a required field."""


@dataclass(frozen=True)
class Field:
    """One setting: its kind of value and its bounds."""

    name: str
    kind: str  # integer, number, boolean, string, choice, choices, list, model, methods, runtimes, object or any
    description: str = ""
    default: Any = MISSING
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive bounds
    below: float | None = None
    choices: tuple[Any, ...] = ()
    item: str = "string"  # kind of a list's items
    declared_empty: str = ""  # what no value means, as declared by its class
    fields: tuple["Field", ...] = field(default_factory=tuple)  # of a nested object

    @property
    def label(self) -> str:
        """The name as words: "batch size", "memory GB"."""
        return labels.label(self.name)

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is MISSING

    @property
    def when_empty(self) -> str:
        """What an empty field means, in few words: "no limit", "dim / 64", or the default."""
        if self.required:
            return "required"
        return self.declared_empty or "not set" if self.nullable else in_words(self.default)

    @property
    def range(self) -> str:
        """Allowed values as text: "0 to 1", "row, group or tensor", "at least 1"."""
        if self.kind == "boolean":
            return "yes or no"
        if self.choices:
            *others, last = map(str, self.choices)
            return f"{', '.join(others)} or {last}" if others else last
        low = _bound(self.minimum, "at least", self.above, "above")
        high = _bound(self.maximum, "at most", self.below, "below")
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        return ", ".join(part for part in (low, high) if part)


def _bound(inclusive: float | None, word: str, exclusive: float | None, strict: str) -> str:
    if inclusive is not None:
        return f"{word} {inclusive:g}"
    return f"{strict} {exclusive:g}" if exclusive is not None else ""


def in_words(value: Any) -> str:
    """A setting's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def list_fields(schema: Mapping[str, Any]) -> list[Field]:
    """The settings of a schema written by pydantic's `model_json_schema`, in order."""
    return _fields(schema, schema)


def starting_settings(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Initial settings of a form: a required model is the recipe's own model (stage 0)."""
    return {
        field.name: {"source": "stage:0"} for field in list_fields(schema) if field.kind == "model" and field.required
    }


def _fields(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Field]:
    required = set(schema.get("required", ()))
    return [_field(name, prop, name in required, root) for name, prop in schema.get("properties", {}).items()]


def _resolve(prop: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """`prop` with its `$ref` resolved; keys next to the `$ref` take precedence."""
    resolved = dict(prop)
    while "$ref" in resolved:
        target = root.get("$defs", {}).get(resolved.pop("$ref").rsplit("/", 1)[-1], {})
        resolved = {**target, **resolved}
    return resolved


def _field(name: str, prop: Mapping[str, Any], required: bool, root: Mapping[str, Any]) -> Field:
    outer = _resolve(prop, root)
    options = [_resolve(option, root) for option in outer.get("anyOf", outer.get("oneOf", ()))]
    values = [option for option in options if option.get("type") != "null"]
    nullable = len(values) < len(options)
    inner = {**values[0], **{k: v for k, v in outer.items() if k != "anyOf"}} if len(values) == 1 else outer
    kind = _kind(inner, alternatives=len(values) > 1)
    items = _resolve(inner.get("items", {}), root) if isinstance(inner.get("items", {}), Mapping) else {}
    return Field(
        name=name,
        kind=kind,
        description=outer.get("description", ""),
        default=MISSING if required else outer.get("default", _EMPTY.get(kind)),
        nullable=nullable,
        minimum=inner.get("minimum"),
        maximum=inner.get("maximum"),
        above=inner.get("exclusiveMinimum"),
        below=inner.get("exclusiveMaximum"),
        choices=tuple(items.get("enum", ()) if kind == "choices" else _choices(inner)),
        item=items.get("type", "string"),
        declared_empty=outer.get("when_empty", ""),
        fields=tuple(_fields(inner, root)) if kind == "object" else (),
    )


# Defaults made by a factory.
_EMPTY: dict[str, Any] = {"list": [], "choices": [], "methods": [], "runtimes": [], "object": {}}


def _choices(inner: Mapping[str, Any]) -> list[Any]:
    return [inner["const"]] if "const" in inner else list(inner.get("enum", ()))


def _kind(inner: Mapping[str, Any], alternatives: bool) -> str:
    if inner.get("role") in ("model", "methods", "runtimes"):
        return str(inner["role"])
    if "enum" in inner or "const" in inner:
        return "choice"
    if alternatives:
        return "any"
    match inner.get("type"):
        case "integer" | "number" | "boolean" | "string":
            return str(inner["type"])
        case "array":
            item = inner.get("items", {})
            simple = item.get("type") in ("integer", "number", "string")
            return "choices" if "enum" in item else "list" if simple else "any"
        case "object" if inner.get("properties"):
            return "object"
    return "any"
