"""Pydantic's JSON schemas become fields that a form can draw."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from app.schema import MISSING, fields
from app.schema import Field as FormField


class Inner(BaseModel):
    width: int = 3


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bits: int = Field(ge=2, le=8, description="bits of a weight")
    sparsity: float = Field(0.5, ge=0, lt=1)
    rate: float = Field(1e-3, gt=0)
    heads: int | None = Field(None, ge=1)
    scheme: Literal["symmetric", "affine"] = "symmetric"
    maybe: Literal["row", "group"] | None = None
    fast: bool = True
    note: str | None = None
    sizes: list[int] = [1]
    runtimes: list[Literal["eager", "compile"]] = ["eager"]
    teacher: Any = Field(None, json_schema_extra={"role": "model"})
    methods: list[Any] = Field(default=[], json_schema_extra={"role": "methods"})
    inner: Inner = Inner()
    odd: int | str = 1
    table: dict[str, int] = {}


FIELDS = {field.name: field for field in fields(Settings.model_json_schema())}


def test_every_kind_is_recognised():
    assert {name: field.kind for name, field in FIELDS.items()} == {
        "bits": "integer", "sparsity": "number", "rate": "number", "heads": "integer", "scheme": "choice",
        "maybe": "choice", "fast": "boolean", "note": "string", "sizes": "list", "runtimes": "choices",
        "teacher": "model", "methods": "methods", "inner": "object", "odd": "any", "table": "any",
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
    assert FIELDS["runtimes"].choices == ("eager", "compile")


def test_nested_settings_have_their_own_fields():
    assert [(field.name, field.default) for field in FIELDS["inner"].fields] == [("width", 3)]


@pytest.mark.parametrize(
    ("description", "placeholder"),
    [
        ("tokens; the task's if empty", "automatic"),
        ("its split; cut from train if there is none", "automatic"),
        ("longest time to run; empty: no limit", "no limit"),
        ("rank of every layer, instead of `kept`", "none"),
    ],
)
def test_an_empty_field_says_what_that_means(description, placeholder):
    assert FormField("rank", "integer", description, default=None, nullable=True).when_empty == placeholder
    assert FormField("rank", "integer", description).when_empty == "required"


def test_units_keep_their_case():
    assert FormField("memory_gb", "number").label == "memory GB"


def test_a_training_has_updates_and_a_recipe_steps():
    assert FormField("steps", "integer").label == "updates"
