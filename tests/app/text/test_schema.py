"""Pydantic's JSON schemas become fields that a form can draw."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from app.text.schema import MISSING, in_words, list_fields
from app.text.schema import Field as FormField
from core.spec.catalogue import KINDS, built_in
from core.spec.model import LimitSpec, MeasureSpec

TOGGLED = ("model", "methods", "object")  # kinds whose widget shows by itself that there is nothing


class Inner(BaseModel):
    width: int = 3


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bits: int = Field(ge=2, le=8, description="bits per weight")
    sparsity: float = Field(0.5, ge=0, lt=1)
    rate: float = Field(1e-3, gt=0)
    heads: int | None = Field(None, ge=1)
    scheme: Literal["symmetric", "affine"] = "symmetric"
    maybe: Literal["row", "group"] | None = None
    fast: bool = True
    note: str | None = None
    sizes: list[int] = [1]
    places: list[Literal["row", "column"]] = ["row"]
    runtimes: list[Any] = Field(default=["eager"], json_schema_extra={"role": "runtimes"})
    teacher: Any = Field(None, json_schema_extra={"role": "model"})
    methods: list[Any] = Field(default=[], json_schema_extra={"role": "methods"})
    inner: Inner = Inner()
    odd: int | str = 1
    table: dict[str, int] = {}


FIELDS = {field.name: field for field in list_fields(Settings.model_json_schema())}


def test_every_kind_is_recognised():
    assert {name: field.kind for name, field in FIELDS.items()} == {
        "bits": "integer", "sparsity": "number", "rate": "number", "heads": "integer", "scheme": "choice",
        "maybe": "choice", "fast": "boolean", "note": "string", "sizes": "list", "places": "choices",
        "runtimes": "runtimes", "teacher": "model", "methods": "methods", "inner": "object", "odd": "any",
        "table": "any",
    }  # fmt: skip


def test_required_and_nullable():
    assert FIELDS["bits"].required and FIELDS["bits"].default is MISSING
    assert not FIELDS["sparsity"].required
    assert {name for name, field in FIELDS.items() if field.nullable} == {"heads", "maybe", "note"}


def test_bounds_in_words():
    assert FIELDS["bits"].range == "2 to 8"
    assert FIELDS["sparsity"].range == "at least 0, below 1"
    assert FIELDS["rate"].range == "above 0"
    assert FIELDS["heads"].range == "at least 1"
    assert FIELDS["maybe"].range == "row or group"
    assert FIELDS["fast"].range == "yes or no"


def test_lists_know_their_items():
    assert FIELDS["sizes"].item == "integer"
    assert FIELDS["places"].choices == ("row", "column")


def test_nested_settings_have_their_own_fields():
    assert [(field.name, field.default) for field in FIELDS["inner"].fields] == [("width", 3)]


@pytest.mark.parametrize(
    ("schema", "placeholder"),
    [
        ({"type": "integer"}, "required"),
        ({"type": "integer", "default": 4}, "4"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "when_empty": "by size"}, "by size"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 2, "when_empty": "no limit"}, "no limit"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, "not set"),  # a plug-in's
    ],
)
def test_an_empty_field_says_what_that_means(schema, placeholder):
    required = [] if "default" in schema else ["rank"]
    (field,) = list_fields({"properties": {"rank": schema}, "required": required})
    assert field.when_empty == placeholder


@pytest.mark.parametrize(
    ("value", "read"), [(True, "yes"), (False, "no"), ([1, 64], "1, 64"), (0.001, "0.001"), (2.0, "2"), ("cls", "cls")]
)
def test_values_read_as_people_write_them(value, read):
    assert in_words(value) == read


def published() -> dict[str, dict]:
    """Every schema that a form is drawn from, by its name."""
    catalogue = built_in()
    schemas = {f"{kind} {name}": entry["schema"] for kind in KINDS for name, entry in getattr(catalogue, kind).items()}
    return schemas | {spec.__name__: spec.model_json_schema() for spec in (MeasureSpec, LimitSpec)}


@pytest.mark.parametrize("name", sorted(published()))
def test_an_optional_setting_says_what_empty_means(name):
    schema = published()[name]
    optional = [field for field in list_fields(schema) if field.nullable and field.kind not in TOGGLED]
    assert [field.name for field in optional if not field.declared_empty] == []
    declared = [name for name, setting in schema.get("properties", {}).items() if "when_empty" in setting]
    assert declared == [field.name for field in optional]
    assert all(len(field.declared_empty) <= 14 for field in optional), "a field has room for few words"


def test_units_keep_their_case():
    assert FormField("memory_gb", "number").label == "memory GB"


def test_a_training_has_updates_and_a_recipe_steps():
    assert FormField("steps", "integer").label == "updates"
