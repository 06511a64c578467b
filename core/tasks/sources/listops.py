"""ListOps: the value of nested operations on digits, generated as in the Long Range Arena.

Papers: https://arxiv.org/abs/1804.06028 (Nangia & Bowman), https://arxiv.org/abs/2011.04006 (the arena; its
`listops.py` makes a node above the greatest depth an operation with probability 1/4, of 2 to `arguments` arguments,
else a digit, and throws away trees that are too short or too long). Here a token is one character, so that bytes
count as the arena's tokens: ^ is [MAX, _ is [MIN, ~ is [MED (halves are rounded down), + is [SM (the sum modulo 10),
and ] ends an operation. The value of ^29_47]0] is 9.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from core.errors import SpecError
from core.settings import settings
from core.tasks.data import TaskSource, TextData
from core.tasks.kept import kept

VERSION = 1  # of the drawing
SEED = 50_001
HELD_OUT = 2_000  # examples of validation, and of test
OPERATION = 0.25  # probability that a node is one
MAX, MIN, MED, SUM_MOD = OPERATORS = "^_~+"
END = "]"
DRAWN_TOKENS = 2**22  # at once
RAREST = 1e-4  # share of the trees that must have a length within the limits


class ListOps(TaskSource):
    """Nested operations on digits, ten classes: any token may matter, at any distance."""

    length: int = Field(
        512, ge=16, le=16_384, description="upper limit of tokens in a text (2,000 in Long Range Arena)"
    )
    shortest: int | None = Field(
        None,
        ge=2,
        le=16_000,
        description="lower limit of tokens in a text (500 in Long Range Arena); length / 4 if empty",
        json_schema_extra={"when_empty": "length / 4"},
    )
    depth: int = Field(10, ge=2, le=20, description="maximum depth of nesting")
    arguments: int = Field(10, ge=2, le=30, description="maximum number of arguments of an operation")
    examples: int = Field(20_000, ge=100, le=1_000_000, description="training examples (96,000 in Long Range Arena)")

    def read(self, name: str) -> TextData:
        """The splits: test comes first, so it does not depend on the number of examples. Raises SpecError for settings
        that almost no tree satisfies."""
        shortest = self.length // 4 if self.shortest is None else self.shortest
        identity = self.identity(VERSION, SEED, HELD_OUT)
        file = settings().home / "cache" / f"listops-{identity[:16]}.npy"
        lines = kept(file, lambda: self._lines(shortest)).tobytes().decode().split("\n")
        ends = {"test": HELD_OUT, "validation": 2 * HELD_OUT, "train": len(lines)}
        starts = dict(zip(ends, (0, *ends.values()), strict=False))
        labels = {split: np.array([int(line[0]) for line in lines[starts[split] : end]]) for split, end in ends.items()}
        most_frequent = np.bincount(labels["train"]).argmax()
        return TextData(
            class_names=tuple("0123456789"),
            labels=labels,
            texts={split: [line[1:] for line in lines[starts[split] : end]] for split, end in ends.items()},
            length=self.length,
            content_hash=identity,
            guesses={
                "any digit": 10.0,
                "the most frequent one": 100 * float((labels["test"] == most_frequent).mean()),
            },
        )

    def _lines(self, shortest: int) -> NDArray[np.uint8]:
        """All examples as lines of a value and a text, without duplicate texts."""
        found: dict[str, int] = {}
        n, n_trees = self.examples + 2 * HELD_OUT, 0
        for trees, texts, values in _batches(self.depth, self.arguments, self.length - 1):
            n_trees += trees
            found.update((text, value) for text, value in zip(texts, values, strict=True) if len(text) > shortest)
            if len(found) < RAREST * n_trees:
                message = f"is exceeded by fewer than one in {1 / RAREST:,.0f} of such trees"
                remedy = "Choose a lower limit, a longer length or more depth."
                raise SpecError.of("task.shortest", shortest, message, remedy)
            if len(found) >= n:
                lines = "\n".join(f"{value}{text}" for text, value in list(found.items())[:n])
                return np.frombuffer(lines.encode(), dtype=np.uint8)
        raise AssertionError("batches never end")


def _batches(depth: int, arguments: int, longest: int) -> Iterator[tuple[int, list[str], list[int]]]:
    """Endlessly yield the number of generated trees, with texts and values of those up to `longest` tokens."""
    random = np.random.default_rng(SEED)
    n = DRAWN_TOKENS // longest
    while True:
        trees = Trees(random, n, depth, arguments, longest)
        yield n, *trees.finished()


class Trees:
    """`n` trees, written in parallel from left to right; the root is an operation, not a single digit."""

    def __init__(self, random: np.random.Generator, n: int, depth: int, arguments: int, longest: int):
        self.random, self.depth, self.arguments = random, depth, arguments
        self.tokens = np.zeros((n, longest), dtype=np.uint8)  # of ASCII
        self.open = np.zeros(n, dtype=np.int64)  # operations that have not ended
        self.operator = np.zeros((n, depth), dtype=np.int64)  # of each open operation
        self.to_come = np.zeros((n, depth), dtype=np.int64)  # its arguments that are not begun
        self.seen = np.zeros((n, depth, 10), dtype=np.int64)  # how often each digit is among the others
        self.value = np.full(n, -1)  # of finished trees
        growing = np.arange(n)
        for place in range(longest):
            growing = self._write(growing, place)

    def finished(self) -> tuple[list[str], list[int]]:
        """Texts and values of the trees that have ended."""
        done = np.flatnonzero(self.value >= 0)
        texts = [row.tobytes().rstrip(b"\0").decode() for row in self.tokens[done]]
        return texts, self.value[done].tolist()

    def _write(self, trees: NDArray[np.int64], place: int) -> NDArray[np.int64]:
        """Write one token of each tree; returns the trees that are not finished."""
        ends = (self.open[trees] > 0) & (self.to_come[trees, self.open[trees] - 1] == 0)
        operation = self.random.random(len(trees)) < OPERATION if place else np.ones(len(trees), dtype=bool)
        operation &= self.open[trees] + 1 < self.depth
        begun = trees[~ends]
        self.to_come[begun, self.open[begun] - 1] -= 1
        self._begin(trees[~ends & operation], place)
        self._digit(trees[~ends & ~operation], place)
        self._end(trees[ends], place)
        return trees[self.open[trees] > 0]

    def _begin(self, trees: NDArray[np.int64], place: int) -> None:
        operator = self.random.integers(len(OPERATORS), size=len(trees))
        self.tokens[trees, place] = np.frombuffer(OPERATORS.encode(), dtype=np.uint8)[operator]
        level = self.open[trees]
        self.operator[trees, level] = operator
        self.to_come[trees, level] = self.random.integers(2, self.arguments + 1, size=len(trees))
        self.seen[trees, level] = 0
        self.open[trees] += 1

    def _digit(self, trees: NDArray[np.int64], place: int) -> None:
        digit = self.random.integers(10, size=len(trees))
        self.tokens[trees, place] = ord("0") + digit
        self.seen[trees, self.open[trees] - 1, digit] += 1

    def _end(self, trees: NDArray[np.int64], place: int) -> None:
        self.tokens[trees, place] = ord(END)
        level = self.open[trees] - 1
        value = results(self.seen[trees, level])[np.arange(len(trees)), self.operator[trees, level]]
        self.open[trees] = level
        inner = level > 0
        self.value[trees[~inner]] = value[~inner]
        self.seen[trees[inner], level[inner] - 1, value[inner]] += 1


def results(seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The result of each operator, in the order of OPERATORS, for arguments that occur `seen` [n, 10] times: [n, 4]."""
    up_to = seen.cumsum(axis=1)
    n_arguments = up_to[:, -1:]

    def ranked(rank: NDArray[np.int64]) -> NDArray[np.int64]:  # the argument of this rank, the smallest's being 0
        return (up_to > rank).argmax(axis=1)

    smallest, largest = ranked(np.zeros_like(n_arguments)), ranked(n_arguments - 1)
    median = (ranked((n_arguments - 1) // 2) + ranked(n_arguments // 2)) // 2
    return np.stack((largest, smallest, median, seen @ np.arange(10) % 10), axis=1)
