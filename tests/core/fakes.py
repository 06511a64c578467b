"""A task and a model small enough to compute by hand, and a context around them."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.context import Context
from core.engine.recording import MemoryRecord
from core.errors import Interrupted
from core.subject import Subject
from core.tasks.base import Kind, Score
from core.technique import OneShot


class PlaneTask:
    """Points of the plane in two classes, by the sign of their first coordinate."""

    name = "test:plane"
    kind = Kind.IMAGE_CLASSIFICATION
    score = Score("accuracy", "%", higher_is_better=True)
    n_classes = 2
    class_names = ("left", "right")
    image_shape = None
    length = None
    content_hash = "plane"

    def __init__(self, n_examples: int = 64, n_features: int = 8):
        points = torch.randn(n_examples, n_features, generator=torch.Generator().manual_seed(0))
        self.points, self.labels = points, (points[:, 0] > 0).long()

    def prepare(self, format: object) -> None:
        """Nothing to encode."""

    def split(self, name: str) -> "PlaneTask":
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"x": self.points[indices], "labels": self.labels[indices]}

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(logits, batch["labels"])

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"correct": (logits.argmax(-1) == batch["labels"]).float()}

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        return {"accuracy": 100 * float(examples["correct"].mean())}


class TwoLayers(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, n_features: int = 8):
        super().__init__()
        self.up = nn.Linear(n_features, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.up(x)))


class StopAt(MemoryRecord):
    """Interrupts a training once, at one update."""

    def __init__(self, update: int):
        super().__init__()
        self.update = update

    def progress(self, fraction: float, text: str) -> None:
        if text.startswith(f"update {self.update} of"):
            self.update = -1
            raise Interrupted


def taken_up(
    train: OneShot, make: Callable[..., Subject], folder: Path, *, at: int, **options: object
) -> tuple[tuple[Subject, MemoryRecord], tuple[Subject, MemoryRecord]]:
    """What a training leaves and records when it is never interrupted, and when it is, at an update, and taken up.

    `make` gives the subject; the one that takes up the checkpoint begins with other weights (`seed`). `options` are the
    context's.
    """
    whole, broken, resumed = make(), make(), make(seed=5)
    record, again = MemoryRecord(), MemoryRecord()
    train.apply(whole, context(whole, record, **options))
    with pytest.raises(Interrupted):
        train.apply(broken, context(broken, StopAt(at), checkpoint=folder / "state", **options))
    train.apply(resumed, context(resumed, again, checkpoint=folder / "state", **options))
    return (whole, record), (resumed, again)


def plane_subject(seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    return Subject({"main": TwoLayers()}, PlaneTask(), {"main": {}})


def context(subject: Subject, record: MemoryRecord | None = None, **options: object) -> Context:
    return Context(
        task=subject.task,
        seed_material="test",
        record=record or MemoryRecord(),
        **{"device": torch.device("cpu"), "resolve": lambda reference: copy.deepcopy(subject.model), **options},
    )
