"""Embeddings: texts that a model maps to vectors, compared with the reference's, or with people's similarity scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from core.rank_correlation import pearson, spearman
from core.scores import COSINE, PEARSON, PERCENT, SPEARMAN, Score
from core.tasks.base import InputFormat, Split, labels_of, require_loss
from core.tasks.data import EmbeddingData, calibration_indices
from core.tasks.kinds import Kind

LABEL_STEPS = 1_000_000  # of a label from the lowest score to the highest; whole, as batches may be cast to 16 bits


class EmbeddingTask:
    """A task on `EmbeddingData`.

    Pairs with scores are scored by Spearman's correlation of the cosine with the score, as in STS (Reimers & Gurevych,
    2019), texts alone by the mean cosine with the reference's embeddings.
    """

    def __init__(self, name: str, data: EmbeddingData):
        self.name, self.data = name, data
        self.kind: Kind = data.kind
        self.score: Score = SPEARMAN if data.scores else COSINE
        self.class_names: tuple[str, ...] = ()
        self.n_classes: int | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self.length: int | None = data.length
        self.content_hash = data.content_hash
        self._tokenizer: Any = None

    def prepare(self, format: InputFormat) -> None:
        """Use the model's tokenizer; texts are truncated to `format.length` tokens."""
        self._tokenizer = format.tokenizer
        self.length = min(self.data.length, format.length or self.data.length)

    def split(self, name: str) -> Split:
        """Texts as `input_ids` and `attention_mask` [B, T]; pairs as [B, 2, T], with `labels` [B]."""
        if self._tokenizer is None:
            raise RuntimeError("prepare the task with the model's tokenizer before taking a split")
        rows = [[self._encode(text) for text in texts] for texts in self._texts(name)]
        labels = torch.from_numpy(self._labels(name)) if self.data.scores else None
        return EmbeddingSplit(rows, self._tokenizer.pad_id, labels)

    def _encode(self, text: str) -> Tensor:
        """At least one token, since attention needs one."""
        return torch.tensor(self._tokenizer.encode(text)[: self.length] or [self._tokenizer.pad_id])

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the pairs' cosines against their scores in 0..1; embeddings are [B, 2, D]."""
        require_loss(self)
        return F.mse_loss(cosines(logits[:, 0], logits[:, 1]), labels_of(batch) / LABEL_STEPS)

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of pairs, the cosine (`similarity`) and the `score` [B]; of texts, their `cosine` with the reference [B].

        The latter is 1 for a model by itself. Where there is a reference, measuring it sets the cosine.
        """
        if not self.data.scores:
            return {"cosine": torch.ones(len(logits), device=logits.device)}
        return {"similarity": cosines(logits[:, 0], logits[:, 1]), "score": batch["labels"] / LABEL_STEPS}

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Spearman's and Pearson's correlation, or the mean cosine with the reference; all times 100."""
        if not self.data.scores:
            return {COSINE.name: PERCENT * examples["cosine"].double().mean().item()}
        similarity, score = examples["similarity"].numpy(), examples["score"].numpy()
        correlations = {SPEARMAN.name: spearman(similarity, score), PEARSON.name: pearson(similarity, score)}
        return {name: PERCENT * value for name, value in correlations.items()}

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The texts; of pairs both, with the score as the label."""
        texts, scores = self._texts(split), self._own(self.data.scores, split)
        return [{"text": " ↔ ".join(texts[i]), "label": f"{scores[i]:g}" if len(scores) else ""} for i in indices]

    def _texts(self, split: str) -> list[tuple[str, ...]]:
        columns = [self._own(self.data.texts, split)]
        columns += [self._own(self.data.partners, split)] if self.data.partners else []
        return list(zip(*columns, strict=True))

    def _labels(self, split: str) -> np.ndarray:
        """Scores as whole numbers, 0 for the lowest of the training pairs and LABEL_STEPS for their highest."""
        low, high = float(self.data.scores["train"].min()), float(self.data.scores["train"].max())
        shares = (np.array(self._own(self.data.scores, split)) - low) / ((high - low) or 1.0)
        return (shares * LABEL_STEPS).round().astype(np.int64)

    @staticmethod
    def _own(column: Mapping[str, Any], split: str) -> Any:
        """The values of a split; of calibration those of some training examples."""
        if split != "calibration":
            return column.get(split, ())
        values = column.get("train", ())
        return [values[i] for i in calibration_indices(len(values))] if len(values) else ()


class EmbeddingSplit:
    """Tokenized texts, or pairs of them, in a fixed order."""

    def __init__(self, rows: list[list[Tensor]], pad_id: int, labels: Tensor | None):
        self.rows, self.pad_id, self.labels = rows, pad_id, labels

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (1 where there is a token) [B, T], or [B, 2, T] and `labels` [B] of pairs."""
        chosen = [self.rows[i] for i in indices.tolist()]
        flat = [tokens for row in chosen for tokens in row]
        batch = {
            "input_ids": pad_sequence(flat, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad_sequence([torch.ones_like(each) for each in flat], batch_first=True),
        }
        if self.labels is None:
            return batch
        pairs = {key: value.unflatten(0, (len(chosen), -1)) for key, value in batch.items()}
        return {**pairs, "labels": self.labels[indices]}


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between vectors [..., D] and others, in float32 [...]."""
    return F.cosine_similarity(first.float(), second.float(), dim=-1)
