"""Replicates: stages of one recipe with different seeds, equal in model, task, steps and settings. Loads no torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.spec.catalogue import Catalogue, built_in
from core.spec.model import StepSpec
from core.spec.run_references import list_named_runs


@dataclass(frozen=True)
class Replicate:
    """The identity of a stage's recipe and of its seeds: two 63-bit hashes.

    Stages with equal `recipe` differ only in seeds; with equal `seeds` too, only in device and software.
    """

    recipe: int
    seeds: int


def replicate(spec: Mapping[str, Any], position: int, task_hash: str, sources: Mapping[int, Replicate]) -> Replicate:
    """The replicate of the stage after the first `position` steps of a spec (as written by `RunSpec.to_dict`).

    `sources` are the last stages of the runs in the spec: each counts as its recipe, and its seeds as seeds. A
    run that is not among them counts as itself.
    """
    until = {"model": spec["model"], "recipe": spec.get("recipe", [])[:position]}
    known = [sources[named.number] for named in list_named_runs(until) if named.number in sources]
    names = {f"run:{number}": f"recipe:{found.recipe}" for number, found in sources.items()}
    measure = spec.get("measure", {})
    recipe = [task_hash, measure.get("test_examples"), _plain(until["model"], names), _steps(until["recipe"], names)]
    return Replicate(_hash(recipe), _hash([spec.get("seed", 0), *(found.seeds for found in known)]))


def _steps(steps: Sequence[Any], names: Mapping[str, str]) -> list[Any]:
    """Steps without settings that have their default values."""
    return [_step(StepSpec.model_validate(step), names, built_in()) for step in steps]


def _step(step: StepSpec, names: Mapping[str, str], catalogue: Catalogue) -> list[Any]:
    properties = catalogue.techniques.get(step.technique, {}).get("schema", {}).get("properties", {})
    settings = {
        name: _steps(value, names) if name == "methods" and isinstance(value, list) else _plain(value, names)
        for name, value in step.settings.items()
        if name not in properties or properties[name].get("default", ...) != value
    }
    return [step.technique, settings]


def _plain(value: Any, names: Mapping[str, str]) -> Any:
    """A value with run references replaced."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {key: _plain(inner, names) for key, inner in value.items()}
    return [_plain(inner, names) for inner in value] if isinstance(value, list) else value


def _hash(value: Any) -> int:
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
