"""Finds the text and label columns of a table, and its classes. Loads no torch."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from core.errors import SpecError

TEXT_COLUMNS = ("text", "sentence", "content", "review", "body", "document", "title")
FIRST_COLUMNS = ("sentence1", "text1", "sentence_a", "text_a", "first", "question1", "premise", "query")
SECOND_COLUMNS = ("sentence2", "text2", "sentence_b", "text_b", "second", "question2", "hypothesis", "passage")
SCORE_COLUMNS = ("score", "similarity", "similarity_score", "relatedness_score", "label")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label", "coarse_label", "intent")
IMAGE_COLUMNS = ("image", "img", "picture", "pixels")
MOST_CLASSES = 10_000
COMPOUND = (list, tuple, set, dict, bytes, np.ndarray)

Place = Callable[[int], str]  # index of an example -> where it is: "line 7"


def find_column(columns: Sequence[str], given: str | None, usual: Sequence[str]) -> str | None:
    """The given column, else the first with a usual name; None if the table has neither."""
    if given is not None:
        return given if given in columns else None
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in usual if name in lower), None)


def get_column(columns: Sequence[str], given: str | None, usual: Sequence[str], what: str, holds: str = "") -> str:
    """The column for `what` ("text"), which `holds` "the texts"; raises SpecError, listing the existing columns."""
    column = find_column(columns, given, usual)
    if column is None:
        there = ", ".join(columns) or "none"
        message = (
            f"is not a column of the data, which has {there}"
            if given
            else f"cannot be determined from the columns {there}"
        )
        raise SpecError.of(
            f"task.{what}_column",
            given or "",
            message,
            f"Set {what}_column to the column with {holds or f'the {what}s'}.",
        )
    return column


def row_of(index: int) -> str:
    """The row of an example."""
    return f"row {index + 1:,}"


def classes_of(labels: Sequence[object], place: Place = row_of) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes in order (numbers by value), and each example's class [N].

    If all labels are numbers, equal values in any notation (1, "1", 1.0) are one class. Raises SpecError, naming
    the place, for missing or multiple labels; also if there is only one class, or too many.
    """
    for index, label in enumerate(labels):
        _require_single(label, place, index)
    names = [str(label).strip() for label in labels]
    numbers = _numbers(names, place)
    keys: Sequence[Any] = names if numbers is None else numbers  # all text or all numbers
    distinct = set(keys)
    if not 2 <= len(distinct) <= MOST_CLASSES:
        message = f"have {len(distinct):,} different values; classification needs 2 to {MOST_CLASSES:,}"
        raise SpecError.of(
            "task.label_column", f"{len(names):,} labels", message, "Choose the column with the classes."
        )
    ordered = sorted(distinct)
    index_of = {key: i for i, key in enumerate(ordered)}
    class_names = [str(key) for key in ordered] if numbers is None else _notations(names, numbers, ordered)
    return tuple(class_names), np.array([index_of[key] for key in keys], dtype=np.int64)


def number_of(name: str) -> Decimal | None:
    """The finite number that a name represents, else None: "1", "1.0" and "1e0" are equal."""
    try:
        number = Decimal(name)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _require_single(label: object, place: Place, index: int) -> None:
    if isinstance(label, COMPOUND):
        message = f"contains {_shortened(label)} in {place(index)}, which is not a single label"
        raise SpecError.of("task.label_column", type(label).__name__, message, "Provide exactly one label per row.")
    is_nan = isinstance(label, float) and math.isnan(label)
    if label is None or is_nan or not str(label).strip():
        raise SpecError.of("task.label_column", label, f"is empty in {place(index)}", "Provide a label in every row.")


def _numbers(names: Sequence[str], place: Place) -> list[Decimal] | None:
    """The labels as numbers, None if they are names. A "nan" among numbers is a missing label."""
    number_by_name = {name: number_of(name) for name in set(names)}
    odd = {name for name, number in number_by_name.items() if number is None}
    if odd and all(name.lower() == "nan" for name in odd) and len(odd) < len(number_by_name):
        index = next(i for i, name in enumerate(names) if name in odd)
        message = f"is not a number in {place(index)}, while the other labels are"
        raise SpecError.of("task.label_column", names[index], message, "Provide a label in every row.")
    return None if odd else [number for name in names if (number := number_by_name[name]) is not None]


def _notations(names: Sequence[str], numbers: Sequence[Decimal], ordered: Sequence[Decimal]) -> list[str]:
    """How each number is written in the data; the shortest notation if there are several."""
    written: dict[Decimal, set[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        written.setdefault(number, set()).add(name)
    return [
        next(iter(written[number])) if len(written[number]) == 1 else format(number.normalize(), "f")
        for number in ordered
    ]


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} …"


def scores_of(values: Sequence[object], column: str, place: Place = row_of) -> np.ndarray:
    """Similarity scores as numbers [N]; raises SpecError, naming the place, for anything else."""
    found = np.empty(len(values))
    for index, value in enumerate(values):
        number = None if isinstance(value, COMPOUND) else number_of(str(value).strip())
        if number is None:
            message = f"contains {_shortened(value)} in {place(index)}, which is not a number"
            raise SpecError.of("task.score_column", column, message, "Choose a column with a number in every row.")
        found[index] = float(number)
    if len(found) and found.min() == found.max():
        message = "has the same score in every row, so there is nothing to correlate with"
        raise SpecError.of("task.score_column", column, message, "Choose another column, or leave score_column empty.")
    return found
