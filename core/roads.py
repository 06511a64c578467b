"""The road of a recipe: where its model comes from, which steps lead on, and the key of every stage on the way.

A model reference inside a step (a teacher) leads to another place: a stage of the same road, or the end of
a road of its own. Keys are known before anything is computed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from core import artifact, models
from core.artifact_store import ArtifactStore
from core.errors import SpecError
from core.measured import FoundRun
from core.recording import RunRecord
from core.spec import ModelSpec, RunSpec, StepSpec
from core.stage_key import stage_key
from core.tasks.base import Task
from core.techniques.base import Technique
from core.techniques.catalogue import technique


@dataclass
class Road:
    """A source and the steps from it, with the key of every stage along the way."""

    source: ModelSpec
    steps: list[tuple[StepSpec, Technique]]
    keys: list[str] = field(default_factory=list)


def bound_steps(recipe: Sequence[StepSpec], field: str) -> list[tuple[StepSpec, Technique]]:
    """The recipe's techniques with their settings; raises SpecError."""
    return [(step, technique(step, f"{field}[{index}]")) for index, step in enumerate(recipe)]


def is_run(spec: ModelSpec) -> bool:
    """Whether a reference names an earlier run."""
    return spec.source.startswith("run:")


class Roads:
    """Finds the roads of one run: loads their sources once, and knows what determines each stage."""

    def __init__(self, spec: RunSpec, task: Task, record: RunRecord, artifacts: ArtifactStore, device: torch.device):
        self.spec, self.task, self.record, self.artifacts, self.device = spec, task, record, artifacts, device
        self._sources: dict[str, models.Loaded] = {}

    def source(self, spec: ModelSpec) -> models.Loaded:
        """The model as it comes, loaded once."""
        name = spec.model_dump_json()
        if name not in self._sources:
            if is_run(spec):
                self._sources[name] = artifact.load_source(self.artifacts.open(self.run(spec).last_key))
            else:
                seed = int.from_bytes(hashlib.sha256(f"{self.spec.seed}/weights".encode()).digest()[:7], "big")
                self._sources[name] = models.load(spec, self.task, torch.Generator().manual_seed(seed))
        return self._sources[name]

    def run(self, spec: ModelSpec) -> FoundRun:
        """The finished run that `run:<id>` names; raises SpecError."""
        number = spec.source.removeprefix("run:")
        found = self.record.find_run(int(number)) if number.isdecimal() else None
        if found is None:
            raise SpecError.of("model.source", spec.source, "is no finished run", "Choose a run that is done.")
        return found

    def road(self, source: ModelSpec, recipe: Sequence[StepSpec]) -> Road:
        """The road that a recipe takes from a source, with the key of every stage."""
        road = Road(source, bound_steps(recipe, "recipe"))
        determining: list[dict[str, Any]] = []
        for position in range(len(road.steps) + 1):
            if position:
                step, bound = road.steps[position - 1]
                determining.append({step.technique: self._determining(road, bound)})
            road.keys.append(
                stage_key(
                    source=self._source_hash(source),
                    task=self.task.content_hash,
                    seed=self.spec.seed,
                    steps=determining,
                    device_type=self.device.type,
                    test_examples=self.spec.measure.test_examples,
                )
            )
        return road

    def target(self, road: Road, reference: ModelSpec) -> tuple[Road, int]:
        """The road and the position on it that a model reference means."""
        if reference.source.startswith("stage:"):
            return road, int(reference.source.removeprefix("stage:"))
        other = self.road(reference, reference.recipe)
        return other, len(other.steps)

    def _source_hash(self, source: ModelSpec) -> str:
        return self.run(source).last_key if is_run(source) else self.source(source).content_hash

    def _determining(self, road: Road, bound: Technique) -> dict[str, Any]:
        """A technique's settings, defaults included, with every model that they name replaced by its key."""
        settings = bound.model_dump(mode="json")
        for name, info in type(bound).model_fields.items():
            extra = info.json_schema_extra
            role = extra.get("role") if isinstance(extra, dict) else None
            if role == "model" and settings[name] is not None:
                target, position = self.target(road, ModelSpec.model_validate(settings[name]))
                settings[name] = target.keys[position]
            elif role == "methods":
                methods = [technique(StepSpec.model_validate(item), name) for item in settings[name]]
                settings[name] = [
                    {next(iter(item)): self._determining(road, method)}
                    for item, method in zip(settings[name], methods, strict=True)
                ]
        return settings
