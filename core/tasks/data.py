"""Data as read, independent of any model: pixels and texts in NumPy and str. Loads no torch.

Each has the splits train, validation and test, which are determined when the data is
read and never depend on a run's seed. The calibration split is taken from train (`calibration_indices`).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from core.tasks.kinds import Kind

DATA_SPLITS = ("train", "validation", "test")
CALIBRATION_EXAMPLES = 1024  # enough for every method's published calibration set


@dataclass(frozen=True)
class ImageData:
    """Labelled images of one size; the pixels of a split are read or rendered on first use."""

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height, width
    labels: Mapping[str, np.ndarray]  # split -> int64 [N]
    pixels: Callable[[str], np.ndarray]  # split -> uint8 [N, height, width, channels]
    content_hash: str
    warnings: tuple[str, ...] = ()
    kind = Kind.IMAGE_CLASSIFICATION


@dataclass(frozen=True)
class TextData:
    """Labelled texts, truncated to `length` tokens for a model."""

    class_names: tuple[str, ...]
    labels: Mapping[str, np.ndarray]  # split -> int64 [N]
    texts: Mapping[str, Sequence[str]]  # split -> N texts
    length: int
    content_hash: str
    guesses: Mapping[str, float] = field(default_factory=dict)  # a way of guessing -> its accuracy (%)
    warnings: tuple[str, ...] = ()
    kind = Kind.TEXT_CLASSIFICATION


@dataclass(frozen=True)
class CorpusData:
    """Running text for language modelling, cut into windows of `length` tokens."""

    texts: Mapping[str, str]  # split -> text
    length: int
    content_hash: str
    entropy: float | None = None  # bits per character of the source, where it is known
    warnings: tuple[str, ...] = ()
    kind = Kind.LANGUAGE_MODELLING


@dataclass(frozen=True)
class AnswersData:
    """Sequences in which a language model predicts some characters, the answers, from those before."""

    texts: Mapping[str, Sequence[str]]  # split -> N sequences
    answers: tuple[int, ...]  # places of the answers' characters, the same in every sequence, ascending
    length: int
    content_hash: str
    guesses: Mapping[str, float] = field(default_factory=dict)  # a way of guessing -> its accuracy (%)
    warnings: tuple[str, ...] = ()
    kind = Kind.LANGUAGE_MODELLING


@dataclass(frozen=True)
class EmbeddingData:
    """Texts to embed, or pairs of texts with a score of how similar they are; truncated to `length` tokens."""

    texts: Mapping[str, Sequence[str]]  # split -> N texts
    length: int
    content_hash: str
    partners: Mapping[str, Sequence[str]] = field(default_factory=dict)  # split -> the second text of N pairs
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)  # split -> float64 [N], in the data's own unit
    warnings: tuple[str, ...] = ()
    kind = Kind.EMBEDDINGS


Data = ImageData | TextData | CorpusData | AnswersData | EmbeddingData


class TaskSource(BaseModel):
    """The settings of one source of tasks; its key in the catalogue is the source's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    places: ClassVar[frozenset[str]] = frozenset()  # settings that say only where data lies, not what it is

    def read(self, name: str) -> Data:
        """Read the data of `name`: the part after "file:" or "hf:", else the name of the built-in task."""
        raise NotImplementedError(type(self).__name__)

    def identity(self, *content: Any) -> str:
        """Hash of the settings and the data; equal only for equal examples in equal splits."""
        settings = self.model_dump(mode="json", exclude=set(self.places))
        digest = hashlib.sha256(json.dumps([type(self).__name__, settings], sort_keys=True).encode())
        for part in content:
            digest.update(part if isinstance(part, bytes) else str(part).encode())
            digest.update(b"\0")
        return digest.hexdigest()


def calibration_indices(n_train: int) -> np.ndarray:
    """Which examples of train are the calibration split: at most 1,024, evenly spread [n]."""
    return np.linspace(0, n_train - 1, min(n_train, CALIBRATION_EXAMPLES)).round().astype(np.int64)
