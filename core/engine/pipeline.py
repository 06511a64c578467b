"""Executes a spec stage by stage: apply a step, save the artifact, measure the packed copy, record.

A step always receives the subject loaded from the artifact of the previous stage, whether that stage was
computed now or reused. Its random numbers depend on the spec only: the seed, the contents of model and data,
and the steps so far, but not on the software, the device type or the measurements. So a run that reuses stages
gives the same results as one that does not.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core import tasks
from core.artifacts import artifact
from core.artifacts.manifest import Manifest, manifest_digest
from core.artifacts.store import ArtifactStore
from core.calibration import load_calibration
from core.context import Context
from core.engine import preflight
from core.engine.recording import PartOfProgress, RunRecord
from core.engine.stage_plan import StagePlan, StagePlanner, calibrates, is_run, stage_family
from core.errors import SpecError
from core.integrity import EXAMPLES, REPORT
from core.measure import score
from core.measure.reach import Snapshot
from core.measure.stage import StageMeasurer
from core.measured import CALIBRATION, CHECKPOINT, SOURCE, FoundRun, StageRecord
from core.software import software
from core.spec.model import ModelSpec, RunSpec
from core.subject import Subject
from core.tasks.base import Task
from core.technique import OneShot

REFERENCE_POSITION = -1  # of a reference that is not a stage of the run itself
APPLY_SHARE = 0.9  # of a step's progress; the rest is measuring


def execute(
    spec: RunSpec, record: RunRecord, *, artifacts: ArtifactStore, device: str = "cpu", resume: Path | None = None
) -> list[StageRecord]:
    """Execute a spec and return its measured stages; `device` is cpu or gpu, `resume` a folder for checkpoints."""
    return Execution(spec, record, artifacts, torch.device("cuda" if device == "gpu" else "cpu"), resume).run()


def check(spec: RunSpec) -> None:
    """Raise SpecError for problems that only the model reveals; builds it on the meta device and computes nothing."""
    task = tasks.load(spec.task)
    load_calibration(spec.calibration, spec.task, task)
    preflight.check(spec, task)


class Execution:
    """One run of a spec."""

    def __init__(
        self, spec: RunSpec, record: RunRecord, artifacts: ArtifactStore, device: torch.device, resume: Path | None
    ):
        self.spec, self.record, self.artifacts, self.device, self.resume = spec, record, artifacts, device, resume
        self.task: Task = tasks.load(spec.task)
        self.calibration = load_calibration(spec.calibration, spec.task, self.task)
        identity = self.calibration.identity(self.task)
        self.planner = StagePlanner(spec, self.task, record, artifacts, device, identity)
        preflight.check(spec, self.task, self._source_subject(spec.model) if is_run(spec.model) else None)
        self.task.prepare(self.planner.source(spec.model).input_format)
        self.calibration.prepare(self.task, self.planner.source(spec.model).input_format)
        self.main = self._plan()
        self.measurer = StageMeasurer(spec.measure, self.task, device, record)
        self.reference_key: str | None = None

    def run(self) -> list[StageRecord]:
        """Compute or reuse every stage in order, and record each as soon as it is measured."""
        self.record.note_environment({"software": software(), **self.measurer.environment()})
        stages = []
        explicit = self._explicit_reference()
        if explicit is not None:
            stages += self._bring_reference(*explicit)
        for position in range(len(self.main.keys)):
            stages.append(self._record(self._stage(self.main, position)))
        return [stage for stage in stages if stage.position >= 0]

    def _plan(self) -> StagePlan:
        """The plan of the recipe; its keys name a reference that the score is taken against if it is not the source."""
        plan = self.planner.plan(self.spec.model, self.spec.recipe)
        if not self.task.score.is_relative:
            return plan
        reference = None
        if self.spec.reference is not None:
            target, position = self._target_of_reference(plan, self.spec.reference)
            reference = target.draws[position]
        elif is_run(self.spec.model):
            reference = self._inherited_reference(self.planner.run(self.spec.model))
        return self.planner.plan(self.spec.model, self.spec.recipe, reference)

    def _target_of_reference(self, plan: StagePlan, reference: ModelSpec) -> tuple[StagePlan, int]:
        try:
            return self.planner.target(plan, reference)
        except SpecError as error:
            raise error.moved("model", "reference") from error

    def _stage(self, plan: StagePlan, position: int, shown_position: int | None = None) -> StageRecord:
        key = plan.keys[position]
        shown = position if shown_position is None else shown_position
        self._find_whole(key)  # discards a damaged artifact before the step begins, so that only one run recomputes it
        self.record.begin_step(shown, len(self.main.keys), self._label(plan, position), key)
        folder = self.realize(plan, position)
        found = self.record.find_stage(key)
        if found is not None and found.manifest_sha256 != manifest_digest(folder):
            found = None  # it was measured from another artifact than this one
        manifest = Manifest.read(folder)
        may_be_reference = not manifest.compressed or self.task.score.is_relative
        if self.reference_key is None and manifest.trained and may_be_reference:
            self.reference_key = key
        report = json.loads((folder / REPORT).read_text())
        measured = self.measurer.measure(
            position=shown,
            key=key,
            folder=folder,
            identity=self._identity(plan, position, report, manifest),
            found=found,
            reference_key=self.reference_key if manifest.trained else None,
            reference_folder=self._reference_folder() if manifest.trained else None,
            address=self.artifacts.address(key),
        )
        self.artifacts.send_rest(key)
        return measured

    def _record(self, stage: StageRecord) -> StageRecord:
        """Record a stage, and update comparisons with it that were made with other results."""
        self.record.stage(stage)
        if not stage.reused:
            for key, reference_key in self.record.list_outdated(stage.measured.key):
                self.record.progress(1.0, "updating comparisons of other runs")
                pair = [self._find_whole(each) for each in (key, reference_key)]
                files = [folder / EXAMPLES for folder in pair if folder is not None]
                if len(files) == 2 and all(file.exists() for file in files):
                    examples, reference = (artifact.load_examples(file.parent) for file in files)
                    self.record.compare(key, reference_key, score.paired(self.task, examples, reference))
        return stage

    def realize(self, plan: StagePlan, position: int) -> Path:
        """The folder of a stage's artifact; computes it and earlier stages if it is missing or damaged."""
        key = plan.keys[position]
        whole = self._find_whole(key)
        if whole is not None:
            return whole
        started = time.monotonic()
        subject = self._source_subject(plan.source) if position == 0 else self._apply(plan, position)
        seconds = time.monotonic() - started
        with self.artifacts.writing(key) as draft:
            (draft / REPORT).write_text(json.dumps({"seconds": seconds, "details": subject.details}))
            artifact.save(subject, draft, self.planner.source(plan.source))
        folder = self.artifacts.open(key)
        if position == 0:
            self.planner.source(plan.source).module.to("cpu")  # from now on it is read from its artifact
        for checkpoint in () if self.resume is None else self.resume.glob(f"{key}.*"):
            checkpoint.unlink(missing_ok=True)
        return folder

    def _find_whole(self, key: str) -> Path | None:
        return self.artifacts.find_whole(key, self.record.report_damage)

    def _apply(self, plan: StagePlan, position: int) -> Subject:
        subject = artifact.load_subject(self.realize(plan, position - 1), self.task, self.device)
        step, bound = plan.steps[position - 1]
        assert isinstance(bound, OneShot), "validation admits only steps to a recipe"
        context = Context(
            device=self.device,
            task=self.task,
            seed_material=plan.draws[position],
            record=PartOfProgress(self.record, APPLY_SHARE),
            resolve=lambda reference: self._resolve(plan, position, reference),
            checkpoint=self._checkpoint(plan.keys[position]),
            calibration_set=self.calibration if calibrates(bound) else None,
        )
        try:
            bound.check(subject)
        except SpecError as error:
            raise error.at(f"recipe[{position - 1}].{step.technique}") from error
        if not bound.changes:
            bound.apply(subject, context)
            return subject
        before = Snapshot(subject)
        bound.apply(subject, context)
        subject.compressed |= bound.compresses
        reached = before.compare()
        if not reached["share"]:
            kinds = ", ".join(dict.fromkeys(module["kind"] for module in reached["missed"]))
            message = f"reaches none of the model's {reached['parameters']:,} parameters, which are those of: {kinds}"
            remedy = "Leave this step out, or choose a model of layers that it knows."
            raise SpecError.of(f"recipe[{position - 1}]", step.technique, message, remedy)
        subject.details["reached"] = reached
        if calibrates(bound) and context.coverage.drawn:
            subject.details[CALIBRATION] = context.coverage.report()
        return subject

    def _checkpoint(self, key: str) -> Path | None:
        return None if self.resume is None else self.resume / f"{key}.safetensors"

    def _source_subject(self, source: ModelSpec) -> Subject:
        if is_run(source):
            return self.planner.subject(source)
        loaded = self.planner.source(source)
        module = loaded.module.to(self.device).eval()
        subject = Subject({"main": module}, self.task, {"main": loaded.config}, loaded.trained)
        if loaded.stored is not None:
            subject.details[CHECKPOINT] = asdict(loaded.stored)
        return subject

    def _resolve(self, plan: StagePlan, position: int, reference: ModelSpec | str) -> nn.Module:
        """The model that a step's settings name, ready to execute."""
        target, at = self.planner.target(plan, ModelSpec.model_validate(reference))
        if target is plan and at >= position:
            raise SpecError.of(
                "teacher", f"stage:{at}", "is not before this step", f"Choose stage:0 to stage:{position - 1}."
            )
        return artifact.load_models(self.realize(target, at), self.device)["main"]

    def _explicit_reference(self) -> tuple[StagePlan, int] | None:
        """The reference of the spec, or that of the run that it starts from."""
        if self.spec.reference is not None:
            return self._target_of_reference(self.main, self.spec.reference)
        if is_run(self.spec.model):
            self.reference_key = self._inherited_reference(self.planner.run(self.spec.model))
        return None

    def _inherited_reference(self, earlier: FoundRun) -> str | None:
        """The reference of the run that this one starts from; None if it was scored on other data."""
        last = self.record.find_stage(earlier.last_key)
        if last is None or last.measured.task_hash == self.task.content_hash:
            return earlier.reference_key
        message = (
            f"{self.spec.model.source} was scored on other data than {self.task.name}, so its reference is not used."
        )
        self.record.event("info", message)
        return None

    def _bring_reference(self, plan: StagePlan, position: int) -> list[StageRecord]:
        self.reference_key = plan.keys[position]
        if plan is self.main:
            self.realize(plan, position)
            return []
        return [self._record(self._stage(plan, position, REFERENCE_POSITION))]

    def _reference_folder(self) -> Path | None:
        if self.reference_key is None:
            return None
        folder = self._find_whole(self.reference_key)
        if folder is None:  # it is the reference of the run that this one starts from
            raise self.planner.lost(self.spec.model, "was compared with a stage whose artifact is missing or damaged")
        return folder

    def _label(self, plan: StagePlan, position: int) -> str:
        if position == 0:
            return plan.source.source
        step, bound = plan.steps[position - 1]
        return f"{step.technique} {bound.label()}".strip()

    def _identity(self, plan: StagePlan, position: int, report: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
        """The columns that identify a stage."""
        step = plan.steps[position - 1][0] if position else None
        return {
            "technique": step.technique if step else SOURCE,
            "family": self._family(plan, position),
            "label": self._label(plan, position),
            "settings": step.settings if step else plan.source.settings,
            "model": self.spec.model.source,
            "task": self.spec.task.source,
            "task_hash": self.task.content_hash,
            "trained": manifest.trained,
            "compressed": manifest.compressed,
            "seconds": report["seconds"],
            "details": report["details"],
            "checkpoint_bytes": report["details"].get(CHECKPOINT, {}).get("bytes"),
        }

    def _family(self, plan: StagePlan, position: int) -> str:
        """The stage's family; a run that starts from an earlier one continues with that run's last family."""
        found = self.record.find_stage(self.planner.run(plan.source).last_key) if is_run(plan.source) else None
        before = SOURCE if found is None or not position else found.measured.family
        return stage_family((bound for _, bound in plan.steps[:position]), before)
