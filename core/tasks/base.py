"""The interface of tasks: splits that never depend on a run's seed, a training loss, and per-example scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from core.errors import SpecError
from core.nn.precision import float_dtype
from core.scores import Score
from core.spec.model import OWN_DATA
from core.tasks.kinds import SPLITS, Kind

__all__ = [
    "SPLITS",
    "InputFormat",
    "Kind",
    "Score",
    "Split",
    "Task",
    "inputs",
    "labels_of",
    "logits_of",
    "require_loss",
    "require_predictions",
]


@dataclass(frozen=True)
class InputFormat:
    """The format of a model's inputs; a task prepares its data for it once (`Task.prepare`)."""

    tokenizer: Any = None  # has encode(text) -> list[int], decode(ids) -> str, vocab_size, pad_id
    length: int | None = None  # tokens of a window
    image_size: int | None = None  # pixels; None keeps the data's own
    channels: int | None = None
    mean: tuple[float, ...] | None = None  # of each channel, in 0..1
    std: tuple[float, ...] | None = None


class Split(Protocol):
    """Examples in a fixed order."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """The examples as a model's keyword arguments, and `labels` (already shifted for language modelling)."""
        ...


class Task(Protocol):
    """Data and how predictions on it are scored."""

    name: str  # its source: "builtin:digits"
    kind: Kind
    score: Score  # the principal one
    n_classes: int | None
    class_names: tuple[str, ...]  # empty for language modelling
    image_shape: tuple[int, int, int] | None  # channels, height, width of the raw data
    length: int | None  # tokens of a window, for text
    content_hash: str  # of the data and of what determines the splits

    def prepare(self, format: InputFormat) -> None:
        """Encode the data in the model's input format; called before `split`."""

    def split(self, name: str) -> Split:
        """One of SPLITS; calibration is a part of train."""
        ...

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The training loss, a scalar: mean over examples (over tokens for language modelling)."""
        ...

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Quantities of each example [B] from which `summarize` makes scores ("correct"; "nats", "characters")."""
        ...

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """All scores by name in their units, the principal one first, from `per_example` quantities of examples [N].

        Some scores are ratios of sums (bits per character), so any subset or resample of the
        examples can be scored, as the bootstrap does.
        """
        ...

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """Examples for display: {"image": PNG bytes} or {"text": str}, and {"label": str}."""
        ...


def inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a batch that the model is called with."""
    return {key: value for key, value in batch.items() if key != "labels"}


def logits_of(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Logits in float32 of a built-in model (which returns them) or a Hugging Face one (which returns an object).

    Floating-point inputs are converted to the model's dtype.
    """
    dtype = float_dtype(model)
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs(batch).items()}
    output = model(**given)
    return (output if isinstance(output, Tensor) else output.logits).float()


def require_loss(task: Task) -> None:
    """Raise SpecError for a task without labels: nothing can be trained on it, nor any loss's gradient be taken."""
    if task.score.is_relative:
        message = "has texts without similarity scores, so there is no loss to train on or to take gradients of"
        raise SpecError.of(
            "task.source", task.name, message, "Set score_column, or choose a step that needs no labels."
        )


def labels_of(batch: Mapping[str, Tensor]) -> Tensor:
    """The labels of a batch; raises SpecError for calibration data of another task, which have none."""
    if "labels" not in batch:
        message = "has no labels of the task's own, which this step's gradients need"
        raise SpecError.of("calibration.sources", "", message, f"Calibrate this step on the source {OWN_DATA}.")
    return batch["labels"]


def require_predictions(task: Task, field: str) -> None:
    """Raise SpecError for embeddings, which are not logits of anything that a teacher could predict."""
    if task.kind is Kind.EMBEDDINGS:
        message = "imitates a teacher's predictions, but the task's model has embeddings"
        raise SpecError.of(field, task.name, message, "Train on the pairs' scores alone.")
