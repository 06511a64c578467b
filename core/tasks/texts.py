"""Text classification: texts as tokens, padded to the longest in the batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.tasks.base import InputFormat, Split
from core.tasks.classification import Classification
from core.tasks.data import TextData, calibration_indices
from core.tasks.kinds import Kind


class TextTask(Classification):
    """A task on `TextData`; longer texts are truncated to the model's length."""

    def __init__(self, name: str, data: TextData):
        self.name, self.data = name, data
        self.kind: Kind = data.kind
        self.class_names = data.class_names
        self.n_classes: int | None = len(data.class_names)
        self.image_shape: tuple[int, int, int] | None = None
        self.length: int | None = data.length
        self.content_hash = data.content_hash
        self._tokenizer: Any = None

    def prepare(self, format: InputFormat) -> None:
        """Use the model's tokenizer; texts are truncated to `format.length` tokens."""
        self._tokenizer = format.tokenizer
        self.length = min(self.data.length, format.length or self.data.length)

    def split(self, name: str) -> Split:
        """Examples as `input_ids`, `attention_mask` [B, T] and `labels` [B]."""
        if self._tokenizer is None:
            raise RuntimeError("prepare the task with the model's tokenizer before taking a split")
        texts, labels = self._raw(name)
        tokens = [self._encode(text) for text in texts]
        return TextSplit(tokens, torch.from_numpy(labels), self._tokenizer.pad_id)

    def _encode(self, text: str) -> Tensor:
        """At least one token, since attention needs one."""
        return torch.tensor(self._tokenizer.encode(text)[: self.length] or [self._tokenizer.pad_id])

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The texts with the names of their classes."""
        texts, labels = self._raw(split)
        return [{"text": texts[i], "label": self.data.class_names[labels[i]]} for i in indices]

    def _raw(self, split: str) -> tuple[Sequence[str], np.ndarray]:
        if split != "calibration":
            return self.data.texts[split], self.data.labels[split]
        texts, labels = self._raw("train")
        chosen = calibration_indices(len(labels))
        return [texts[i] for i in chosen], labels[chosen]


class TextSplit:
    """Tokenized texts in a fixed order."""

    def __init__(self, tokens: list[Tensor], labels: Tensor, pad_id: int):
        self.tokens, self.labels, self.pad_id = tokens, labels, pad_id

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (1 where there is a token) [B, T] and `labels` [B]."""
        chosen = [self.tokens[i] for i in indices.tolist()]
        return {
            "input_ids": pad_sequence(chosen, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad_sequence([torch.ones_like(each) for each in chosen], batch_first=True),
            "labels": self.labels[indices],
        }
