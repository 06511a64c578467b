"""Associative recall and copying over a chosen distance, from fixed seeds.

Papers: https://arxiv.org/abs/2312.04927 (multi-query associative recall), https://arxiv.org/abs/1410.5401 (copying).
Here keys, values and filler have separate alphabets, each character is a token, and every pair is queried
once in another order, so neither its position nor a nearby answer reveals a value. A sequence is filler, the pairs (or
symbols to copy), filler of `distance` tokens, and then

- recall: each key again, its value to be predicted;
- copy: a mark, and the symbols again, to be predicted;
- classify: a mark and one key, whose value is the class.
"""

import string
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from core.errors import SpecError
from core.tasks.data import AnswersData, TaskSource, TextData

VERSION = 1  # of what the seeds are turned into
SEEDS = {"train": 40_001, "validation": 40_002, "test": 40_003}
EXAMPLES = {"train": 16_384, "validation": 1_000, "test": 2_000}  # of up to TOKENS tokens each; of longer ones fewer
FEWEST = {"train": 512, "validation": 100, "test": 200}
TOKENS = 256
MOST_SYMBOLS = 40
KEYS = string.ascii_letters[:MOST_SYMBOLS]
FILLER, MARK = ". ", "?"
VALUES = string.digits + "".join(c for c in string.punctuation if c not in FILLER + MARK)

Codes = NDArray[np.uint8]  # of ASCII characters [n, characters]


class Drawn(NamedTuple):
    """The random contents of n sequences."""

    head: Codes  # what is to be remembered
    tail: Codes  # what asks for it
    asked: NDArray[np.int64]  # the values in the order in which they are asked for [n, pairs]


class LongRecall(TaskSource):
    """Recall or copy over a chosen distance: shows the limits of sparse attention and of bounded states."""

    variant: Literal["recall", "copy", "classify"] = Field(
        "recall", description="recall and copy are for language models, classify (the value of one key) for classifiers"
    )
    length: int = Field(256, ge=64, le=16_384, description="tokens per sequence")
    distance: int | None = Field(
        None,
        ge=0,
        le=16_384,
        description="tokens between the pairs and the queries; the maximum if empty",
        json_schema_extra={"when_empty": "longest"},
    )
    pairs: int = Field(8, ge=1, le=4_096, description="pairs to recall, or symbols to copy")
    vocabulary: int = Field(16, ge=2, le=MOST_SYMBOLS, description="number of distinct keys, and of distinct values")

    def read(self, name: str) -> AnswersData | TextData:
        """The sequences of every split. Raises SpecError if the pairs, or the distance, do not fit."""
        distance = self._distance()
        n = {split: max(FEWEST[split], min(most, most * TOKENS // self.length)) for split, most in EXAMPLES.items()}
        texts, labels = {}, {}
        for split in EXAMPLES:
            random = np.random.default_rng(SEEDS[split])
            drawn = draw(random, n[split], self.variant, self.pairs, self.vocabulary)
            texts[split] = _texts(random, drawn, self._room() - distance, distance)
            labels[split] = drawn.asked[:, 0]
            if split == "test":
                guesses = self._guesses(drawn.asked)
        identity = self.identity(VERSION, SEEDS, n)
        if self.variant == "classify":
            return TextData(tuple(VALUES[: self.vocabulary]), labels, texts, self.length, identity, guesses=guesses)
        every = 2 if self.variant == "recall" else 1
        answers = tuple(range(self.length + every - every * self.pairs, self.length + 1, every))
        return AnswersData(texts, answers, self.length, identity, guesses=guesses)

    def _guesses(self, asked: NDArray[np.int64]) -> dict[str, float]:
        guesses = {"any value": 100 / self.vocabulary}
        if self.variant == "copy":
            return guesses
        left = frequent_guess(asked, self.vocabulary)  # [n, pairs]
        known = left[:, 0] if self.variant == "classify" else left
        return {**guesses, "the value that most of the remaining pairs have": 100 * float(known.mean())}

    def _room(self) -> int:
        """The number of tokens left for filler."""
        asking = {"recall": 4 * self.pairs, "copy": 2 * self.pairs + 1, "classify": 2 * self.pairs + 2}
        return self.length + (self.variant != "classify") - asking[self.variant]

    def _distance(self) -> int:
        room = self._room()
        if self.variant != "copy" and self.pairs > self.vocabulary:
            message = f"exceeds the {self.vocabulary} distinct keys"
            raise SpecError.of("task.pairs", self.pairs, message, "Choose fewer pairs or a larger vocabulary.")
        if room < 0:
            message = f"do not fit into {self.length} tokens"
            raise SpecError.of("task.pairs", self.pairs, message, "Choose fewer pairs or a longer sequence.")
        if self.distance is not None and self.distance > room:
            message = f"does not fit: {self.pairs} pairs in {self.length} tokens leave {room}"
            raise SpecError.of("task.distance", self.distance, message, f"Choose at most {room}.")
        return room if self.distance is None else self.distance


def draw(random: np.random.Generator, n: int, variant: str, pairs: int, vocabulary: int) -> Drawn:
    """The contents and the queries of `n` sequences."""
    mark = np.full((n, 1), ord(MARK), dtype=np.uint8)
    values = random.integers(vocabulary, size=(n, pairs))
    if variant == "copy":
        symbols = _codes(VALUES)[values]
        return Drawn(symbols, np.hstack((mark, symbols)), values)
    keys = random.random((n, vocabulary)).argsort(axis=1)[:, :pairs]  # different ones
    order = random.random((n, pairs)).argsort(axis=1)
    head = _paired(keys, values)
    keys, values = np.take_along_axis(keys, order, axis=1), np.take_along_axis(values, order, axis=1)
    tail = np.hstack((mark, _codes(KEYS)[keys[:, :1]])) if variant == "classify" else _paired(keys, values)
    return Drawn(head, tail, values)


def frequent_guess(asked: NDArray[np.int64], vocabulary: int) -> NDArray[np.float64]:
    """The probability that the most frequent remaining value is the next one [n, pairs].

    This is the accuracy of a model that remembers the values but not their keys.
    """
    left = np.eye(vocabulary)[asked][:, ::-1].cumsum(axis=1)[
        :, ::-1
    ]  # how often each is to come [n, pairs, vocabulary]
    return left.max(axis=2) / left.sum(axis=2)


def _codes(characters: str) -> Codes:
    return np.frombuffer(characters.encode(), dtype=np.uint8)


def _paired(keys: NDArray[np.int64], values: NDArray[np.int64]) -> Codes:
    """Each key before its value [n, 2 * pairs]."""
    return np.stack((_codes(KEYS)[keys], _codes(VALUES)[values]), axis=2).reshape(len(keys), -1)


def _texts(random: np.random.Generator, drawn: Drawn, before: int, distance: int) -> list[str]:
    n, filler = len(drawn.head), _codes(FILLER)
    first, second = (filler[random.integers(2, size=(n, width))] for width in (before, distance))
    return [row.tobytes().decode() for row in np.hstack((first, drawn.head, second, drawn.tail))]
