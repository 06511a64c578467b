"""The examples that a run calibrates with: its own task's calibration split, or data of a calibration's own.

Data of another task have no labels that fit, so steps that need a loss calibrate on their own task only.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from core import tasks
from core.errors import SpecError
from core.spec.model import OWN_DATA, CalibrationSource, CalibrationSpec, TaskSpec
from core.tasks.answers import AnswersTask
from core.tasks.base import InputFormat, Kind, Task, inputs
from core.tasks.catalogue import read
from core.tasks.conversion import as_inputs
from core.tasks.data import AnswersData, Data, ImageData

SPLIT = "calibration"
Generate = Callable[[str], torch.Generator]  # a purpose -> its generator


@dataclass(frozen=True)
class Part:
    """One source of examples."""

    name: str
    task: Task
    weight: float
    has_labels: bool = True


class CalibrationSet:
    """Examples from one source, or from several by their weights."""

    def __init__(self, parts: Sequence[Part], length: int | None = None, seed: int | None = None):
        self.parts, self.length, self.seed = list(parts), length, seed

    @classmethod
    def of_task(cls, task: Task) -> "CalibrationSet":
        """The default: the task's own calibration split."""
        return cls([Part(OWN_DATA, task, 1.0)])

    def identity(self, task: Task) -> dict[str, Any] | None:
        """What determines the examples beside the run's seed; None for the task's own as they are."""
        if [part.task for part in self.parts] == [task] and self.seed is None:
            return None
        total = sum(part.weight for part in self.parts)
        sources = [[part.task.content_hash, part.weight / total] for part in self.parts]
        return {"sources": sources, "length": self.length, "seed": self.seed}

    def prepare(self, task: Task, format: InputFormat) -> None:
        """Encode what is not the task's own; raises SpecError for images that the model does not take."""
        wanted = format if self.length is None else replace(format, length=self.length)
        for index, part in enumerate(self.parts):
            if part.task is task:
                continue
            part.task.prepare(wanted)
            first = torch.zeros(1, dtype=torch.long)
            shapes = [each.split(SPLIT).batch(first).get("pixel_values") for each in (task, part.task)]
            if shapes[0] is not None and shapes[1] is not None and shapes[0].shape != shapes[1].shape:
                sizes = [" x ".join(map(str, pixels.shape[1:])) for pixels in shapes if pixels is not None]
                message = f"has images of {sizes[1]}, but the model takes {sizes[0]}"
                raise SpecError.of(_field(index), part.name, message, "Set image_size, or choose other images.")

    def draw(self, n_examples: int, batch_size: int, generate: Generate) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Batches of about `n_examples` in all, each from one source, with the source's name."""
        splits = [part.task.split(SPLIT) for part in self.parts]
        counts = apportioned(n_examples, [part.weight for part in self.parts], [len(split) for split in splits])
        for index, (part, split, count) in enumerate(zip(self.parts, splits, counts, strict=True)):
            order = torch.randperm(len(split), generator=self._generator(index, generate))[:count]
            for start in range(0, len(order), batch_size):
                batch = split.batch(order[start : start + batch_size])
                yield part.name, batch if part.has_labels else inputs(batch)

    def _generator(self, index: int, generate: Generate) -> torch.Generator:
        purpose = SPLIT if index == 0 else f"{SPLIT} {index}"
        if self.seed is None:
            return generate(purpose)
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def load_calibration(spec: CalibrationSpec, task_spec: TaskSpec, task: Task) -> CalibrationSet:
    """The examples of a spec, not yet encoded; raises SpecError if they cannot be read or do not suit the task."""
    if spec.length is not None and (task.kind is not Kind.LANGUAGE_MODELLING or isinstance(task, AnswersTask)):
        message = f"is only for language models on running text, but {task.name} is {Kind(task.kind)}"
        raise SpecError.of("calibration.length", spec.length, message, "Remove it.")
    parts = []
    for index, source in enumerate(spec.sources):
        try:
            parts.append(_part(source, spec.length, task_spec, task))
        except SpecError as error:
            raise error.moved("task", f"calibration.sources[{index}]") from error
    return CalibrationSet(parts, spec.length, spec.seed)


def _part(source: CalibrationSource, length: int | None, task_spec: TaskSpec, task: Task) -> Part:
    if source.source == OWN_DATA:
        if source.settings:
            name = next(iter(source.settings))
            raise SpecError.of(f"task.{name}", source.settings[name], "is a setting of the task itself", "Remove it.")
        if length is None:
            return Part(OWN_DATA, task, source.weight)
        return Part(OWN_DATA, tasks.of_data(OWN_DATA, _with_length(read(task_spec), length)), source.weight)
    found = read(source.task)
    data = as_inputs(found, task.kind)
    if data is None:
        message = f"has {found.kind} data, but {task.name} is {Kind(task.kind)}"
        raise SpecError.of("task.source", source.source, message, "Choose data of the same kind of input.")
    data = _with_length(data, length or source.settings.get("length") or task.length)
    made = tasks.of_data(source.source, data)
    same = made.kind is task.kind and made.class_names == task.class_names and made.score == task.score
    return Part(source.source, made, source.weight, has_labels=same)


def _with_length(data: Data, length: int | None) -> Data:
    if length is None or isinstance(data, (ImageData, AnswersData)):
        return data
    return replace(data, length=length)


def apportioned(total: int, weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to the weights and at most the sizes (largest remainders).

    What a source is too small for comes from the others; if all are too small, the numbers are the sizes.
    """
    free, left = set(range(len(sizes))), min(total, sum(sizes))
    while free:
        scale = sum(weights[i] for i in free)
        full = {i for i in free if left * weights[i] / scale >= sizes[i]}
        if not full:
            break
        free -= full
        left -= sum(sizes[i] for i in full)
    exact = {i: left * weights[i] / sum(weights[j] for j in free) for i in sorted(free)}
    counts = [math.floor(exact[i]) if i in exact else size for i, size in enumerate(sizes)]
    by_remainder = sorted(exact, key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: left - sum(counts[i] for i in exact)]:
        counts[i] += 1
    return counts


def _field(index: int) -> str:
    return f"calibration.sources[{index}].source"
