"""A preview of a task's data. Loads no torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.spec.model import TaskSpec
from core.tasks.catalogue import read
from core.tasks.data import (
    DATA_SPLITS,
    AnswersData,
    CorpusData,
    Data,
    EmbeddingData,
    ImageData,
    TextData,
    calibration_indices,
)
from core.tasks.kinds import Kind
from core.tasks.pictures import png

N_ITEMS = 12
N_SEQUENCES = 4  # shown of sequences with answers
FIRST_CHARACTERS = 600  # of a text that is shown


@dataclass(frozen=True)
class PreviewItem:
    """An example for display: an image or a text."""

    label: str
    image: bytes | None = None  # PNG
    text: str | None = None


@dataclass(frozen=True)
class Preview:
    """A summary of a task's data."""

    kind: Kind
    counts: dict[str, int]  # split -> examples; characters for language modelling
    unit: str  # what is counted: "examples" or "characters"
    classes: dict[str, int]  # class -> examples in all splits; empty for language modelling
    image_shape: tuple[int, int, int] | None  # channels, height, width
    items: list[PreviewItem]  # of validation; of running text the beginning of train
    warnings: tuple[str, ...]
    guesses: dict[str, float]  # a way of guessing -> its accuracy (%), where that is known


def load_preview(spec: TaskSpec) -> Preview:
    """Counts and examples of a task's data. Raises SpecError if it cannot be read."""
    data = read(spec)
    classes, counts = _classes(data), _counts(data)
    return Preview(
        kind=data.kind,
        counts=counts,
        unit="characters" if isinstance(data, CorpusData) else "examples",
        classes=classes,
        image_shape=data.shape if isinstance(data, ImageData) else None,
        items=list(_items(data)),
        warnings=data.warnings,
        guesses=dict(data.guesses) if isinstance(data, TextData | AnswersData) else {},
    )


def _counts(data: Data) -> dict[str, int]:
    if isinstance(data, CorpusData):
        return {split: len(text) for split, text in data.texts.items()}
    examples = data.texts if isinstance(data, AnswersData | EmbeddingData) else data.labels
    n = {split: len(examples[split]) for split in DATA_SPLITS}
    return {"train": n["train"], "calibration": len(calibration_indices(n["train"])), **n}


def _classes(data: Data) -> dict[str, int]:
    if isinstance(data, CorpusData | AnswersData | EmbeddingData):
        return {}
    labels = np.concatenate([data.labels[split] for split in DATA_SPLITS])
    n = np.bincount(labels, minlength=len(data.class_names)).tolist()
    return dict(zip(data.class_names, n, strict=True))


def _items(data: Data) -> Iterator[PreviewItem]:
    """Examples spread over the validation split, the smallest split that may be shown."""
    if isinstance(data, CorpusData):
        yield PreviewItem("", text=data.texts["train"][:FIRST_CHARACTERS])
        return
    if isinstance(data, AnswersData):
        for text in data.texts["validation"][:N_SEQUENCES]:
            yield PreviewItem("".join(text[place] for place in data.answers), text=_excerpt(text))
        return
    if isinstance(data, EmbeddingData):
        yield from _texts(data)
        return
    labels = data.labels["validation"]
    chosen = np.linspace(0, len(labels) - 1, min(N_ITEMS, len(labels))).astype(int)
    pixels = data.pixels("validation") if isinstance(data, ImageData) else None
    for i in chosen:
        name = data.class_names[labels[i]]
        if pixels is not None:
            yield PreviewItem(name, image=png(pixels[i]))
        elif isinstance(data, TextData):
            yield PreviewItem(name, text=_excerpt(data.texts["validation"][i]))


def _texts(data: EmbeddingData) -> Iterator[PreviewItem]:
    for i, text in enumerate(data.texts["validation"][:N_ITEMS]):
        if not data.scores:
            yield PreviewItem("", text=_excerpt(text))
            continue
        pair = f"{_excerpt(text)} ↔ {_excerpt(data.partners['validation'][i])}"
        yield PreviewItem(f"{data.scores['validation'][i]:g}", text=pair)


def _excerpt(text: str) -> str:
    """The text, or its beginning and its end, which may contain the query."""
    half = FIRST_CHARACTERS // 2
    return text if len(text) <= FIRST_CHARACTERS else f"{text[:half]} … {text[-half:]}"
