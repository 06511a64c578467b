"""Replicates: stages of one recipe with different seeds, equal in model, task, steps and settings. Loads no torch.

What a step calibrates with counts as a seed: the spread over calibration sets is part of a recipe's noise.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.spec.catalogue import built_in
from core.spec.model import StepSpec
from core.spec.run_references import list_named_runs

COUNT = "calibration_examples"  # the setting of techniques that calibrate


@dataclass(frozen=True)
class Replicate:
    """The identity of a stage's recipe and of its seeds: two 63-bit hashes.

    Stages with equal `recipe` differ only in seeds and calibration data; with equal `seeds` too, only in device and
    software.
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
    calibration = spec.get("calibration", {}) if _calibrates(until["recipe"]) else {}
    steps = _steps(until["recipe"], names, calibration.get("count"))
    recipe = [task_hash, measure.get("test_examples"), _plain(until["model"], names), steps]
    recipe += [{"length": calibration["length"]}] if "length" in calibration else []
    seeds = [spec.get("seed", 0), *(found.seeds for found in known)]
    seeds += [drawn] if (drawn := {key: calibration[key] for key in ("sources", "seed") if key in calibration}) else []
    return Replicate(_hash(recipe), _hash(seeds))


def _calibrates(recipe: Sequence[Any]) -> bool:
    """Whether any of these steps, or a method in one, draws calibration examples."""
    steps = [StepSpec.model_validate(step) for step in recipe]
    methods = [step.settings.get("methods") for step in steps]
    return any(COUNT in _properties(step.technique) for step in steps) or any(
        _calibrates(listed) for listed in methods if isinstance(listed, list)
    )


def _properties(technique: str) -> dict[str, Any]:
    found: dict[str, Any] = built_in().techniques.get(technique, {}).get("schema", {}).get("properties", {})
    return found


def _steps(steps: Sequence[Any], names: Mapping[str, str], count: int | None) -> list[Any]:
    """Steps without settings that have their default values."""
    return [_step(StepSpec.model_validate(step), names, count) for step in steps]


def _step(step: StepSpec, names: Mapping[str, str], count: int | None) -> list[Any]:
    properties = _properties(step.technique)
    counted = {COUNT: count} if count is not None and COUNT in properties else {}
    settings = {
        name: _steps(value, names, count) if name == "methods" and isinstance(value, list) else _plain(value, names)
        for name, value in {**counted, **step.settings}.items()
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
