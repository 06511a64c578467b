"""What a run provides to a technique."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from core.calibration import CalibrationBlock, CalibrationSet, Coverage, count_tokens, walk
from core.spec.model import ModelSpec
from core.subject import Subject
from core.tasks.base import Task


class Record(Protocol):
    """Receives a run's reports: the store (worker/recorder.py), a terminal (app/cli/foreground.py) or a test's list."""

    def progress(self, fraction: float, text: str) -> None:
        """Report the share of the current step that is done (0..1). Raises Cancelled or Interrupted to stop the run."""

    def curve(self, name: str, step: int, value: float) -> None:
        """Add a point to a curve of the current step."""

    def event(self, level: str, message: str) -> None:
        """Add a line to the log: level is info, warning or error."""


class Resolve(Protocol):
    """Resolves a model reference to a model in evaluation mode on the run's device."""

    def __call__(self, reference: ModelSpec | str) -> nn.Module: ...


@dataclass
class Context:
    """Device, randomness, calibration data, teachers and reporting, for one step of one run."""

    device: torch.device
    task: Task
    seed_material: str  # of what is asked for up to this step: its randomness never depends on what ran before it
    record: Record
    resolve: Resolve
    checkpoint: Path | None = None  # where a long training keeps its place; None: nowhere
    calibration_batch_size: int = field(default=32)
    calibration_set: CalibrationSet | None = None  # None: the calibration split of the task
    coverage: Coverage = field(default_factory=Coverage)  # what the step drew, and what its layers saw

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A separate generator for each purpose, the same for the same run and step."""
        digest = hashlib.sha256(f"{self.seed_material}/{purpose}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))

    def calibration(self, n_examples: int) -> Iterator[dict[str, Tensor]]:
        """Batches of the run's calibration examples (by default a part of train), on its device."""
        examples = self.calibration_set or CalibrationSet.of_task(self.task)
        drawn, tokens = Counter[str](), 0
        for source, batch in examples.draw(n_examples, self.calibration_batch_size, self.generator):
            drawn[source] += len(next(iter(batch.values())))
            tokens += count_tokens(batch)
            self.coverage.note_draw(drawn, tokens)
            yield {key: value.to(self.device) for key, value in batch.items()}

    def blocks(
        self,
        subject: Subject,
        n_examples: int,
        layers: Collection[str],
        *,
        batch_size: int | None = None,
        targets: bool = False,
    ) -> Iterator[CalibrationBlock]:
        """The main model's blocks in the order of execution, with the inputs of those of `layers` that each contains.

        Changes to a block affect the inputs of the next one. `targets` are what blocks gave before any change. See
        `core.calibration`.
        """
        batches = self.calibration(n_examples)
        return walk(
            subject.model,
            batches,
            layers,
            self.record,
            self.device,
            coverage=self.coverage,
            batch_size=batch_size,
            targets=targets,
        )
