"""Specs recorded before checkpoints were loaded in their own dtype: their models were float32. Loads no torch."""

from collections.abc import Mapping
from typing import Any

FORMER_DEFAULT = "float32"
_HUGGING_FACE = "hf:"


def with_recorded_dtype(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec (as `RunSpec.to_dict` writes it) in which every Hugging Face model has an explicit dtype."""
    return {key: _named(value) if key in ("model", "reference", "recipe") else value for key, value in spec.items()}


def settings_with_recorded_dtype(source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recorded source stage, with an explicit dtype for Hugging Face models."""
    return {"dtype": FORMER_DEFAULT, **settings} if source.startswith(_HUGGING_FACE) else dict(settings)


def _named(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_HUGGING_FACE):
        return {"source": value, "dtype": FORMER_DEFAULT}
    if isinstance(value, list):
        return [_named(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    named = {key: inner if key == "source" else _named(inner) for key, inner in value.items()}
    source = named.get("source")
    return settings_with_recorded_dtype(source, named) if isinstance(source, str) else named
