"""Base of tasks that predict tokens: windows of tokens, and the cross entropy of those that count."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.scores import Score
from core.tasks.base import InputFormat, Split, labels_of
from core.tasks.data import AnswersData, CorpusData, calibration_indices
from core.tasks.kinds import Kind

IGNORED = -100  # label of what is not predicted (cross entropy's own mark)


class WindowTask:
    """Base class: subclasses cut texts into windows and define the scores."""

    score: Score
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, data: CorpusData | AnswersData):
        self.name = name
        self.kind: Kind = data.kind
        self.n_classes: int | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self.length: int | None = data.length
        self.content_hash = data.content_hash
        self._tokenizer: Any = None
        self._windows: dict[str, WindowSplit] = {}

    def encoded(self, format: InputFormat) -> "dict[str, WindowSplit]":
        """The windows of train, validation and test in the model's input format."""
        raise NotImplementedError(type(self).__name__)

    def prepare(self, format: InputFormat) -> None:
        """Encode every split with the model's tokenizer; raises SpecError if the windows do not fit."""
        self._tokenizer = format.tokenizer
        self._windows = self.encoded(format)
        self.length = max(split.labels.shape[1] for split in self._windows.values())
        train = self._windows["train"]
        chosen = torch.from_numpy(calibration_indices(len(train)))
        self._windows["calibration"] = WindowSplit(train.input_ids[chosen], train.labels[chosen])

    def split(self, name: str) -> Split:
        """Windows as `input_ids` and `labels` [B, T], with labels shifted by one token."""
        if not self._windows:
            raise RuntimeError("prepare the task with the model's tokenizer before taking a split")
        return self._windows[name]

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy, in nats, of the tokens [B, T] that are not IGNORED; logits [B, T, vocab_size]."""
        return F.cross_entropy(logits.flatten(0, 1).float(), labels_of(batch).flatten(), ignore_index=IGNORED)

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over each window's tokens that are not IGNORED [B]: `nats`, how many `tokens`, how many `correct`."""
        labels = batch["labels"]
        nats = F.cross_entropy(logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=IGNORED)  # [B, T]
        scored = labels != IGNORED
        return {
            "nats": nats.sum(dim=1),
            "tokens": scored.sum(dim=1).float(),
            "correct": ((logits.argmax(dim=-1) == labels) & scored).sum(dim=1).float(),
        }


class WindowSplit:
    """Windows of tokens in the order of the text."""

    def __init__(self, input_ids: Tensor, labels: Tensor):
        self.input_ids, self.labels = input_ids, labels  # [N, T]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`input_ids` and `labels` [B, T]."""
        return {"input_ids": self.input_ids[indices], "labels": self.labels[indices]}
