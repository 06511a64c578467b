"""Shared by sources of a user's own data: their settings, and splitting of examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from core.tasks.data import DATA_SPLITS, CorpusData, EmbeddingData, ImageData, TaskSource, TextData
from core.tasks.splitting import completed, contiguous, digest_of

FEW_TEST_EXAMPLES = 200
FEW_OF_A_CLASS = 5


class OwnData(TaskSource):
    """Settings of data that may be text or images, with or without splits."""

    places: ClassVar[frozenset[str]] = frozenset({"second_column", "score_column"})

    kind: Literal["image classification", "text classification", "language modelling", "embeddings"] | None = Field(
        None,
        description="kind of task; inferred from the data if empty",
        json_schema_extra={"when_empty": "automatic"},
    )
    length: int = Field(256, ge=8, le=4096, description="tokens per window, or the maximum of a labelled text")
    image_size: int | None = Field(
        None,
        ge=8,
        le=512,
        description="size in pixels that images are scaled to; their own if empty and all are equal",
        json_schema_extra={"when_empty": "their own"},
    )
    text_column: str | None = Field(
        None,
        description="column with the texts; found by its name if empty",
        json_schema_extra={"when_empty": "by name"},
    )
    label_column: str | None = Field(
        None,
        description="column with the labels; found by its name if empty",
        json_schema_extra={"when_empty": "by name"},
    )
    second_column: str | None = Field(
        None,
        description="for embeddings of pairs: column with the second texts; found by its name if empty",
        json_schema_extra={"when_empty": "by name"},
    )
    score_column: str | None = Field(
        None,
        description="for embeddings of pairs: column with the similarity scores; found by its name if empty",
        json_schema_extra={"when_empty": "by name"},
    )
    validation: float = Field(0.1, ge=0.01, le=0.45, description="share held out for validation")
    test: float = Field(0.2, ge=0.01, le=0.45, description="share held out for the final score")


@dataclass(frozen=True)
class Labelled:
    """Classes of N examples, and the splits that the data came with."""

    labels: np.ndarray  # int64 [N]
    class_names: tuple[str, ...]
    given: Mapping[str, np.ndarray]  # split -> indices; always "train", the others where the data has them


def image_data(source: OwnData, pixels: np.ndarray, examples: Labelled, warnings: Sequence[str] = ()) -> ImageData:
    """Images, uint8 [N, H, W, C], in splits; `warnings` are those from reading them."""
    splits, digests = _split(source, [picture.tobytes() for picture in pixels], examples)
    _, height, width, channels = pixels.shape
    return ImageData(
        class_names=examples.class_names,
        shape=(channels, height, width),
        labels={split: examples.labels[indices] for split, indices in splits.items()},
        pixels=lambda split: pixels[splits[split]],
        content_hash=_identity(source, splits, digests, examples),
        warnings=(*warnings, *_warnings(splits, digests, examples)),
    )


def text_data(source: OwnData, texts: Sequence[str], examples: Labelled) -> TextData:
    """N texts in splits."""
    splits, digests = _split(source, [text.encode() for text in texts], examples)
    return TextData(
        class_names=examples.class_names,
        labels={split: examples.labels[indices] for split, indices in splits.items()},
        texts={split: [texts[i] for i in indices] for split, indices in splits.items()},
        length=source.length,
        content_hash=_identity(source, splits, digests, examples),
        warnings=tuple(_warnings(splits, digests, examples)),
    )


@dataclass(frozen=True)
class EmbeddingRows:
    """N texts, or N pairs with their scores, and the splits that they came with."""

    texts: Sequence[str]
    given: Mapping[str, np.ndarray]  # split -> indices; always "train", the others where the data has them
    partners: Sequence[str] = ()
    scores: np.ndarray | None = None  # float64 [N]


def embedding_data(source: OwnData, rows: EmbeddingRows) -> EmbeddingData:
    """Texts, or pairs with scores, in splits."""
    columns = [column for column in (rows.texts, rows.partners) if len(column)]
    contents = ["\0".join(texts).encode() for texts in zip(*columns, strict=True)]
    examples = Labelled(np.zeros(len(contents), dtype=np.int64), (), rows.given)
    splits, digests = _split(source, contents, examples)
    scores = {} if rows.scores is None else {split: rows.scores[indices] for split, indices in splits.items()}
    placed = [(split, [digests[i] for i in indices]) for split, indices in splits.items()]
    return EmbeddingData(
        texts={split: [rows.texts[i] for i in indices] for split, indices in splits.items()},
        partners={split: [rows.partners[i] for i in indices] for split, indices in splits.items() if rows.partners},
        scores=scores,
        length=source.length,
        content_hash=source.identity(placed, {split: values.tolist() for split, values in scores.items()}),
        warnings=tuple(_overlap_warnings(splits, digests, "scores")),
    )


def corpus_data(source: OwnData, given: Mapping[str, str]) -> CorpusData:
    """Running text; missing splits are cut from the end of train, in the order validation, test."""
    shares = {"validation": source.validation, "test": source.test}
    cut = contiguous(given["train"], **{split: 0 if split in given else share for split, share in shares.items()})
    texts = {split: cut[split] if split == "train" else given.get(split, cut[split]) for split in DATA_SPLITS}
    return CorpusData(texts=texts, length=source.length, content_hash=source.identity(*texts.values()))


def _split(source: OwnData, contents: list[bytes], examples: Labelled) -> tuple[dict[str, np.ndarray], list[str]]:
    digests = [digest_of(content) for content in contents]
    return completed(examples.given, digests, examples.labels, source.validation, source.test), digests


def _identity(source: OwnData, splits: Mapping[str, np.ndarray], digests: list[str], examples: Labelled) -> str:
    placed = [(split, [digests[i] for i in splits[split]], examples.labels[splits[split]].tolist()) for split in splits]
    return source.identity(examples.class_names, placed)


def _warnings(splits: Mapping[str, np.ndarray], digests: list[str], examples: Labelled) -> Iterator[str]:
    """What a user should know before trusting scores on this data."""
    yield from _overlap_warnings(splits, digests, "accuracy")
    train = np.bincount(examples.labels[splits["train"]], minlength=len(examples.class_names))
    rare = [name for name, n in zip(examples.class_names, train, strict=True) if n < FEW_OF_A_CLASS]
    if rare:
        yield f"Classes with fewer than {FEW_OF_A_CLASS} training examples: {', '.join(rare[:10])}."


def _overlap_warnings(splits: Mapping[str, np.ndarray], digests: list[str], score: str) -> Iterator[str]:
    n_test = len(splits["test"])
    if n_test < FEW_TEST_EXAMPLES:
        yield f"The test split has only {n_test} examples: small differences in {score} may be due to chance."
    learned = {digests[i] for i in splits["train"]}
    n_seen = sum(digests[i] in learned for i in splits["test"])
    if n_seen:
        yield f"{n_seen} examples of the test split are also in train: scores will be too good."
    n_repeated = len(digests) - len(set(digests))
    if n_repeated:
        yield f"{n_repeated} examples occur more than once. Where Slimboard splits the data, copies stay together."
