"""The stage plan of a recipe: where its model comes from, its steps, and the key of every stage.

A model reference in a step (a teacher) refers to a stage of the same plan or to the last stage of a
separate plan. Keys are known before anything is computed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from core import models
from core.artifacts import artifact
from core.artifacts.manifest import Manifest
from core.artifacts.store import ArtifactStore
from core.engine.recording import RunRecord
from core.engine.stage_key import Asked, draw_key, stage_key
from core.errors import SpecError
from core.measured import SOURCE, FoundRun
from core.models.classes import ClassMatch, reorder_outputs_, require_match, require_reordered
from core.models.tokenizer import describe_difference
from core.spec.model import ModelSpec, RunSpec, StepSpec
from core.subject import Subject
from core.tasks.base import Kind, Task
from core.technique import CALIBRATION_EXAMPLES, Family, Technique
from core.techniques.catalogue import technique

Of = Literal["keys", "draws"]
LONGEST_NUMBER = 9  # digits of a run's number: a longer one is more than the store's integers hold


@dataclass
class StagePlan:
    """A source and its steps, with each stage's key and the key of its random numbers."""

    source: ModelSpec
    steps: list[tuple[StepSpec, Technique]]
    keys: list[str] = field(default_factory=list)
    draws: list[str] = field(default_factory=list)


def bound_steps(recipe: Sequence[StepSpec], field: str, count: int | None = None) -> list[tuple[StepSpec, Technique]]:
    """The recipe's techniques with their settings; raises SpecError.

    `count` is the number of calibration examples of steps that do not say their own.
    """
    counted = [with_count(step, f"{field}[{index}]", count) for index, step in enumerate(recipe)]
    return [(step, technique(step, f"{field}[{index}]")) for index, step in enumerate(counted)]


def with_count(step: StepSpec, field: str, count: int | None) -> StepSpec:
    """The step, and the methods in it, with this number of calibration examples where they do not say their own."""
    if count is None:
        return step
    bound, settings = technique(step, field), dict(step.settings)
    if bound.calibrates():
        settings.setdefault(CALIBRATION_EXAMPLES, count)
    for name, role in _roles(bound):
        if role == "methods" and settings.get(name):
            methods = [StepSpec.model_validate(item) for item in settings[name]]
            counted = [with_count(each, f"{field}.{name}[{i}]", count) for i, each in enumerate(methods)]
            settings[name] = [each.model_dump() for each in counted]
    return step.model_copy(update={"settings": settings})


def calibrates(bound: Technique) -> bool:
    """Whether a technique or a method in it draws calibration examples."""
    lists = [(name, getattr(bound, name)) for name, role in _roles(bound) if role == "methods"]
    return bound.calibrates() or any(
        method.calibrates() for name, items in lists for _, method in _methods(name, items)
    )


def model_references(bound: Technique) -> Iterator[tuple[str, ModelSpec]]:
    """Model references in the settings of a technique and its methods, with their fields ("methods[0].x.teacher")."""
    for name, role in _roles(bound):
        value = getattr(bound, name)
        if role == "model" and value is not None:
            yield name, ModelSpec.model_validate(value)
        elif role == "methods":
            for place, method in _methods(name, value):
                yield from ((f"{place}.{inner}", reference) for inner, reference in model_references(method))


def _roles(bound: Technique) -> Iterator[tuple[str, object]]:
    """Settings with a role: "model" or "methods"."""
    for name, info in type(bound).model_fields.items():
        if isinstance(info.json_schema_extra, dict) and "role" in info.json_schema_extra:
            yield name, info.json_schema_extra["role"]


def _methods(name: str, items: Sequence[Any]) -> Iterator[tuple[str, Technique]]:
    """The methods in a setting, with their fields ("methods[0].sr_ste")."""
    for index, item in enumerate(items):
        step = StepSpec.model_validate(item)
        yield f"{name}[{index}].{step.technique}", technique(step, f"{name}[{index}]")


def stage_family(steps: Iterable[Technique], source: str) -> str:
    """The family of a stage after these steps from a source's family: the last step's.

    A training counts as its last method that compresses. Without one, the family does not change: a pruned model that
    is trained again is still pruned. If there were only trainings before, its last method of any kind decides. A step
    that only measures does not count.
    """
    family = source
    for bound in steps:
        if not bound.changes:
            continue
        if bound.family is not Family.TRAINING:
            family = bound.family.value
            continue
        lists = [(name, getattr(bound, name)) for name, role in _roles(bound) if role == "methods"]
        methods = [method for name, items in lists for _, method in _methods(name, items)]
        told = [method for method in methods if method.compresses]
        if not told and family in (SOURCE, Family.TRAINING):
            told = methods or [bound]
        family = told[-1].family.value if told else family
    return family


def is_run(spec: ModelSpec) -> bool:
    """Whether a reference is an earlier run."""
    return spec.source.startswith("run:")


class StagePlanner:
    """Builds the stage plans of one run: loads their sources once and determines each stage's key."""

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        record: RunRecord,
        artifacts: ArtifactStore,
        device: torch.device,
        calibration: dict[str, Any] | None = None,
    ):
        self.spec, self.task, self.record, self.artifacts, self.device = spec, task, record, artifacts, device
        self.calibration = calibration  # what determines its examples, unless they are the task's own
        self._sources: dict[str, models.Loaded] = {}
        self._matches: dict[str, ClassMatch] = {}  # last key of an earlier run -> how its classes fit the task's

    def source(self, spec: ModelSpec) -> models.Loaded:
        """The source model, loaded once."""
        name = spec.model_dump_json()
        if name not in self._sources:
            if is_run(spec):
                self._sources[name] = artifact.load_source(self.run_folder(spec))
            else:
                seed = int.from_bytes(hashlib.sha256(f"{self.spec.seed}/weights".encode()).digest()[:7], "big")
                self._sources[name] = models.load(spec, self.task, torch.Generator().manual_seed(seed))
            for note in self._sources[name].notes:
                self.record.event("info", note)
        return self._sources[name]

    def run(self, spec: ModelSpec) -> FoundRun:
        """The finished run of `run:<id>`; raises SpecError, also if its model is incompatible with the task."""
        number = spec.source.removeprefix("run:")
        found = self.record.find_run(int(number)) if number.isdecimal() and len(number) <= LONGEST_NUMBER else None
        if found is None:
            raise SpecError.of("model.source", spec.source, "is not a finished run", "Choose a run that is done.")
        folder = self._find_whole(found.last_key)
        if folder is not None and found.last_key not in self._matches:
            self._fit(spec, found.last_key, folder)
        return found

    def subject(self, spec: ModelSpec) -> Subject:
        """The last subject of the finished run `run:<id>`, with outputs in the order of this task's classes."""
        folder = self.run_folder(spec)
        subject = artifact.load_subject(folder, self.task, self.device)
        match = self._matches[self.run(spec).last_key]
        if match.is_permuted:
            batch = artifact.load_probe(folder, self.device)
            require_reordered(reorder_outputs_(subject.model, match.order, batch, subject.shrink), spec.source)
        return subject

    def _fit(self, spec: ModelSpec, key: str, folder: Path) -> None:
        """Match the classes of an earlier run with the task's; raises SpecError if its model is incompatible."""
        _require_fit(spec, folder, self.task)
        self._matches[key] = match = _match_classes(spec, folder, self.task)
        if match.note:
            self.record.event("info", match.note)
        if match.is_permuted:
            self.subject(spec)  # refuses an output layer that cannot be permuted

    def _find_whole(self, key: str) -> Path | None:
        return self.artifacts.find_whole(key, self.record.report_damage)

    def run_folder(self, spec: ModelSpec) -> Path:
        """The folder of the artifact of `run:<id>`; raises SpecError if it is missing or damaged."""
        folder = self._find_whole(self.run(spec).last_key)
        if folder is None:
            raise self.lost(spec, "has no artifact: it was damaged or removed")
        return folder

    @staticmethod
    def lost(spec: ModelSpec, message: str) -> SpecError:
        """The error for a run whose artifact, or its reference's, is needed and cannot be computed."""
        run = spec.source.removeprefix("run:")
        return SpecError.of("model.source", spec.source, message, f"Requeue run {run}, and then this run.")

    def plan(self, source: ModelSpec, recipe: Sequence[StepSpec], reference: str | None = None) -> StagePlan:
        """The plan of a recipe that starts from a source, with the key of every stage.

        `reference` identifies the run's reference if the task's score is taken against another one than the source.
        """
        plan = StagePlan(source, bound_steps(recipe, "recipe", self.spec.calibration.count))
        origin = self._source_hash(source)
        steps: dict[Of, list[dict[str, Any]]] = {"keys": [], "draws": []}
        for position in range(len(plan.steps) + 1):
            if position:
                step, bound = plan.steps[position - 1]
                place = f"recipe[{position - 1}].{step.technique}"
                for of, determining in steps.items():
                    determining.append({step.technique: self._determining(plan, bound, place, of)})
                if self.calibration is not None and calibrates(bound):
                    steps["keys"][-1]["calibration"] = self.calibration  # of its own: random numbers stay the same
            asked = {of: Asked(origin, self.task.content_hash, self.spec.seed, done) for of, done in steps.items()}
            measured = self.spec.measure.test_examples
            compared = replace(asked["keys"], reference=reference)
            plan.keys.append(stage_key(compared, device_type=self.device.type, test_examples=measured))
            plan.draws.append(draw_key(asked["draws"]))
        return plan

    def target(self, plan: StagePlan, reference: ModelSpec) -> tuple[StagePlan, int]:
        """The plan and position that a model reference refers to."""
        if reference.source.startswith("stage:"):
            return plan, int(reference.source.removeprefix("stage:"))
        other = self.plan(reference, reference.recipe)
        difference = describe_difference(self._tokenizer(self.spec.model), self._tokenizer(reference))
        if difference is not None:
            raise SpecError.of("model.source", reference.source, difference, "Choose a model with the same tokenizer.")
        return other, len(other.steps)

    def _tokenizer(self, source: ModelSpec) -> Any:
        """The tokenizer of a source; None for images, and for an earlier run whose artifact is not available."""
        if not is_run(source):
            return self.source(source).input_format.tokenizer
        key = self.run(source).last_key
        return artifact.load_format(self.artifacts.open(key)).tokenizer if self.artifacts.has(key) else None

    def _source_hash(self, source: ModelSpec) -> str:
        return self.run(source).last_key if is_run(source) else self.source(source).content_hash

    def _determining(self, plan: StagePlan, bound: Technique, place: str, of: Of) -> dict[str, Any]:
        """A technique's settings, including defaults, with every model reference replaced by its key (or draw key)."""
        settings = bound.model_dump(mode="json")
        for name, role in _roles(bound):
            if role == "model" and settings[name] is not None:
                settings[name] = self._named(plan, ModelSpec.model_validate(settings[name]), f"{place}.{name}", of)
            elif role == "methods":
                settings[name] = [
                    {inner.rpartition(".")[2]: self._determining(plan, method, f"{place}.{inner}", of)}
                    for inner, method in _methods(name, settings[name])
                ]
        return settings

    def _named(self, plan: StagePlan, reference: ModelSpec, place: str, of: Of) -> str:
        try:
            target, position = self.target(plan, reference)
        except SpecError as error:
            raise error.moved("model", place) from error
        return (target.keys if of == "keys" else target.draws)[position]


def _require_fit(spec: ModelSpec, folder: Path, task: Task) -> None:
    """Raise SpecError if the inputs or outputs of an earlier run's model do not match the task."""
    shapes = artifact.probe_shapes(folder)
    pixels, answers = shapes.get("input.pixel_values"), shapes["output"]
    kind = Kind.IMAGE_CLASSIFICATION if pixels is not None else _kind_of_text(folder, answers)
    if kind is not task.kind:
        message = f"was made for another kind of task; {task.name} is {Kind(task.kind)}"
        raise SpecError.of("model.source", spec.source, message, "Choose a run of the same kind of task.")
    if task.n_classes is not None and answers[-1] != task.n_classes:
        message = f"predicts {answers[-1]} classes, but {task.name} has {task.n_classes}"
        raise SpecError.of("model.source", spec.source, message, "Choose a run on a task with the same classes.")
    resized = Manifest.read(folder).input_format["image_size"] is not None
    if pixels is not None and task.image_shape is not None and not resized and pixels[2:] != list(task.image_shape[1:]):
        sizes = [" x ".join(map(str, size)) for size in (pixels[2:], task.image_shape[1:])]
        message = f"reads images of {sizes[0]} pixels, but {task.name} has {sizes[1]}"
        raise SpecError.of("model.source", spec.source, message, "Choose a run with images of the same size.")


def _kind_of_text(folder: Path, answers: list[int]) -> Kind:
    """What a model of texts was made for, by the shape of its answers unless they are embeddings."""
    if "sentence" in Manifest.read(folder).configs["main"]:
        return Kind.EMBEDDINGS
    return Kind.LANGUAGE_MODELLING if len(answers) == 3 else Kind.TEXT_CLASSIFICATION


def _match_classes(spec: ModelSpec, folder: Path, task: Task) -> ClassMatch:
    """How the classes of an earlier run's model map to the task's; older artifacts have no class names."""
    if not task.class_names:
        return ClassMatch()
    outputs = Manifest.read(folder).class_names or [f"LABEL_{n}" for n in range(len(task.class_names))]
    return require_match(spec.source, outputs, task.class_names, "Choose a run on data with the same classes.")
