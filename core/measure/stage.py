"""Measures one stage from its artifact: size, score, compute, memory, reload, latency."""

import math
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from core.artifacts import artifact
from core.artifacts.manifest import manifest_digest
from core.context import Record
from core.errors import TechniqueFailure
from core.integrity import EXAMPLES, PACKED
from core.measure import compute, energy, latency, lock, memory, regressions, score, size
from core.measure.fidelity import Incomparable
from core.measure.hardware import hardware_name
from core.measure.meters import Meter, compared, meter_of
from core.measured import Comparison, Fidelity, FoundStage, LatencyRow, MeasuredStage, StageRecord
from core.models.batches import timed_batch
from core.nn.precision import float_dtype
from core.runtimes.base import Refused, Runner
from core.runtimes.catalogue import BoundRuntime, bind_runtime
from core.software import release
from core.spec.model import MeasureSpec
from core.tasks.base import Kind, Task

Load: TypeAlias = Callable[[Path], nn.Module]  # the main model of an artifact, once for each measurement

MEMORY = "peak memory"  # where it was taken, in a stage's details
APPLIED, SCORED, RELOADED = 0.7, 0.85, 0.9  # shares of a step's progress that are done by then


class StageMeasurer:
    """Measures the stages of one run under the same conditions."""

    def __init__(self, spec: MeasureSpec, task: Task, device: torch.device, record: Record):
        self.spec, self.task, self.device, self.record = spec, task, device, record
        self.threads = spec.threads or torch.get_num_threads()
        self.runtimes = [bind_runtime(named, f"measure.runtimes[{i}]") for i, named in enumerate(spec.runtimes)]

    def environment(self) -> dict[str, Any]:
        """The run's hardware and software."""
        return {
            "hardware": hardware_name(self.device.type),
            "threads": self.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
        }

    def measure(
        self,
        *,
        position: int,
        key: str,
        folder: Path,
        identity: dict[str, Any],
        found: FoundStage | None,
        reference_key: str | None,
        reference_folder: Path | None,
        address: str,
    ) -> StageRecord:
        """The stage in `folder`; of a reused one, memory and latency only if from this host."""
        if found is None and identity["trained"]:
            memory.prepare()
        load = cache(lambda where: artifact.load_models(where, self.device)["main"])
        compared_folder = None if key == reference_key else reference_folder
        known = found.fidelities.get(reference_key) if found and reference_key else None
        examples, fidelity = self._scored(folder, compared_folder, known, load)
        measured = (
            self._found(folder, found.measured) if found else self._measured(key, folder, load, examples, identity)
        )
        rows = self._known_latencies(found, reference_key)
        if not rows and measured.trained:
            rows = self._latencies(folder, compared_folder, load)
        comparison = self._comparison(folder, examples, compared_folder, reference_key, load)
        self.record.progress(1.0, "measured")
        return StageRecord(
            position=position,
            measured=measured,
            artifact=address,
            artifact_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            manifest_sha256=manifest_digest(folder),
            reused=found is not None,
            reference_key=reference_key,
            comparison=comparison,
            latencies=rows,
            fidelity=fidelity,
        )

    def _scored(
        self, folder: Path, reference_folder: Path | None, known: Fidelity | None, load: Load
    ) -> tuple[score.Examples, Fidelity | None]:
        """Per-example test results, and the fidelity to the reference.

        Fidelity is measured in the same pass unless it is `known`; None, with the reason in the log, if it cannot be.
        """
        if reference_folder is None or (known is not None and (folder / EXAMPLES).exists()):
            return self._examples(folder, load), known
        meter = meter_of(self.task, load(reference_folder), self.device)
        examples = self._examples(folder, load, meter)
        try:
            return examples, meter.result()
        except Incomparable as error:
            self.record.event("warning", f"fidelity is not measured: {error}")
            return examples, None

    def _examples(self, folder: Path, load: Load, meter: Meter | None = None) -> score.Examples:
        """Per-example test results: those in the artifact, or computed and saved now. `meter` observes all batches."""
        kept = (folder / EXAMPLES).exists()
        if kept and meter is None:
            return artifact.load_examples(folder)

        def progress(share: float) -> None:
            self.record.progress(APPLIED + (SCORED - APPLIED) * share, "scoring on the test split")

        examples = score.evaluate(
            load(folder),
            self.task,
            "test",
            device=self.device,
            limit=self.spec.test_examples,
            progress=progress,
            watch=None if meter is None else meter.watch,
        )
        if kept:
            return artifact.load_examples(folder)
        if meter is not None and self.task.score.is_relative:
            examples |= compared(meter)
        artifact.save_examples(folder, examples)
        return examples

    def _measured(
        self, key: str, folder: Path, load: Load, examples: score.Examples, identity: dict[str, Any]
    ) -> MeasuredStage:
        interval = score.interval(self.task, examples)
        if not math.isfinite(interval.value):
            raise TechniqueFailure(
                f"after {identity['label']} the {self.task.score.name} is {interval.value}: the step left weights or "
                "activations that are not finite. Choose milder settings, or bfloat16 in place of float16."
            )
        language = self.task.kind is Kind.LANGUAGE_MODELLING
        batch = {k: v.to(self.device) for k, v in timed_batch(self.task, 1, self.spec.length).items()}
        counted = compute.count(load(folder), batch, per_token=language, decode=language)
        peak, error = self._reload(folder) if identity["trained"] else (None, None)
        details = dict(identity["details"])
        if peak is not None:
            details[MEMORY] = self._place()
        if counted.decode_macs is not None:
            details["decode_macs"] = counted.decode_macs
        return MeasuredStage(
            **{name: identity[name] for name in identity if name != "details"},
            key=key,
            size_bytes=size.tensor_payload(folder / PACKED),
            score_name=self.task.score.name,
            score_unit=self.task.score.unit,
            higher_is_better=self.task.score.higher_is_better,
            score=interval.value,
            score_low=interval.low,
            score_high=interval.high,
            scores=self.task.summarize(examples),
            parameters=counted.parameters,
            active_parameters=counted.active_parameters,
            nonzeros=counted.nonzeros,
            macs=counted.macs,
            nominal_bits=counted.bits,
            nominal_sparsity=counted.sparsity,
            peak_memory_bytes=peak,
            reload_max_error=error,
            details=details,
        )

    def _found(self, folder: Path, measured: MeasuredStage) -> MeasuredStage:
        """A recorded stage; its peak memory is measured again, or left out, if unknown or measured elsewhere."""
        if not measured.trained or measured.details.get(MEMORY) == self._place():
            return measured
        if not self.spec.memory:
            return replace(measured, peak_memory_bytes=None)
        peak, error = self._reload(folder)
        details = {**measured.details, MEMORY: self._place()}
        return replace(measured, peak_memory_bytes=peak, reload_max_error=error, details=details)

    def _place(self) -> dict[str, str]:
        """The hardware and software that memory and latency belong to."""
        return {"hardware": hardware_name(self.device.type), "software": _software()}

    def _reload(self, folder: Path) -> tuple[int | None, float]:
        """Load the artifact in a fresh process: its peak memory, and the error of its outputs."""

        def tick() -> None:
            self.record.progress(SCORED, "loading the artifact in a fresh process")

        report = memory.reload(folder, self.device.type, tick=tick)
        if not report.error <= report.tolerance:
            raise TechniqueFailure(
                f"the reloaded artifact gives different outputs: they differ by {report.error:.3g} "
                f"while the largest is {report.scale:.3g}"
            )
        return report.peak_bytes if self.spec.memory else None, report.error

    def _known_latencies(self, found: FoundStage | None, reference_key: str | None) -> list[LatencyRow]:
        """Rows of an earlier run under the same conditions and against the same reference, else none."""
        if found is None:
            return []
        tokens = timed_batch(self.task, 1, self.spec.length).get("input_ids")
        length = None if tokens is None else tokens.shape[1]
        here = (hardware_name(self.device.type), self.threads, length)
        software = {bound.title: self._software(bound) for bound in self.runtimes}
        wanted = {(title, batch) for title in software for batch in self.spec.batch_sizes}
        rows = [
            row
            for known_reference, row in found.latencies
            if (row.runtime, row.batch) in wanted
            and (row.hardware, row.threads, row.length) == here
            and row.software == software[row.runtime]
            and known_reference == reference_key
        ]
        if any(row.disturbed or row.repeats < self.spec.repeats for row in rows):
            return []
        return rows if wanted <= {(row.runtime, row.batch) for row in rows} else []

    def _latencies(self, folder: Path, reference_folder: Path | None, load: Load) -> list[LatencyRow]:
        rows = []
        for bound in self.runtimes:
            for index, batch_size in enumerate(self.spec.batch_sizes):
                share = index / len(self.spec.batch_sizes)
                text = f"timing, {bound.title}, batch {batch_size}"
                self.record.progress(RELOADED + (1 - RELOADED) * share, text)
                rows += self._timed(bound, folder, reference_folder, load, batch_size, text)
        return rows

    def _timed(
        self,
        bound: BoundRuntime,
        folder: Path,
        reference_folder: Path | None,
        load: Load,
        batch_size: int,
        text: str,
    ) -> list[LatencyRow]:
        """Rows of one runtime and batch size; none, with the reason in the log, if the runtime rejects the model."""
        batch = {k: v.to(self.device) for k, v in timed_batch(self.task, batch_size, self.spec.length).items()}
        model = load(folder)
        runner = self._runner(bound, model, batch, text)
        if runner is None:
            return []
        compared = self._runner(bound, load(reference_folder), batch, text) if reference_folder else None
        conditions = latency.TimingConditions(
            hardware=hardware_name(self.device.type),
            software=self._software(bound),
            runtime=bound.title,
            dtype=str(float_dtype(model)).removeprefix("torch."),
            threads=self.threads,
            repeats=self.spec.repeats,
            decode_tokens=self.spec.decode_tokens,
        )
        with lock.measuring(tick=lambda: self.record.progress(RELOADED, f"{text}: waiting for another measurement")):
            return latency.measure(
                runner,
                compared,
                batch,
                conditions,
                language=self.task.kind is Kind.LANGUAGE_MODELLING,
                meter=energy.find_meter(self.device.type),
                tick=lambda: self.record.progress(RELOADED, text),
            )

    def _runner(
        self, bound: BoundRuntime, model: nn.Module, batch: dict[str, torch.Tensor], text: str
    ) -> Runner | None:
        """The model in a runtime; None, with the reason in the log, if the runtime rejects it."""
        try:
            return bound.runtime.load(model, self.device, float_dtype(model), batch)
        except Refused as refusal:
            self.record.event("info", f"{text}: {refusal}")
            return None

    def _software(self, bound: BoundRuntime) -> str:
        """The software that executes a model in a runtime; latencies with other software are measured again."""
        beside_torch = bound.software("gpu" if self.device.type == "cuda" else "cpu")
        return f"{_software()}, {beside_torch}" if beside_torch else _software()

    def _comparison(
        self, folder: Path, examples: score.Examples, reference_folder: Path | None, key: str | None, load: Load
    ) -> Comparison | None:
        """The paired test against the reference, `key`; None for the reference itself."""
        if reference_folder is None or key is None:
            return None
        reference = self._examples(reference_folder, load)
        regressions.save(folder, self.task, examples, reference, key, self.spec.test_examples)
        return score.paired(self.task, examples, reference)


def _software() -> str:
    return f"torch {torch.__version__}, slimboard {release()}"
