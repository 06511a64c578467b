"""Finding the columns of a table, and the classes in one. Loads no torch."""

from collections.abc import Sequence

import numpy as np

from core.errors import SpecError

TEXT_COLUMNS = ("text", "sentence", "content", "review", "body", "document", "title")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label", "coarse_label", "intent")
IMAGE_COLUMNS = ("image", "img", "picture", "pixels")
MOST_CLASSES = 10_000


def find_column(columns: Sequence[str], given: str | None, usual: Sequence[str]) -> str | None:
    """The column that was given, else the first with a usual name; None where the table has neither."""
    if given is not None:
        return given if given in columns else None
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in usual if name in lower), None)


def get_column(columns: Sequence[str], given: str | None, usual: Sequence[str], what: str) -> str:
    """The column for `what` ("text"); raises SpecError, naming the columns that there are."""
    column = find_column(columns, given, usual)
    if column is None:
        there = ", ".join(columns) or "none"
        message = f"is not a column of the data, which has: {there}" if given else f"cannot be told from: {there}"
        raise SpecError.of(
            f"task.{what}_column", given or "", message, f"Set {what}_column to the one that has the {what}s."
        )
    return column


def classes_of(labels: Sequence[object]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes in order (numbers by value), and each example's class [N].

    Raises SpecError for a missing label, for a single class and for so many that they are no classes.
    """
    for row, label in enumerate(labels, start=1):
        if label is None or not str(label).strip():
            raise SpecError.of("task.label_column", label, f"is empty in row {row:,}", "Give every row a label.")
    names = [str(label).strip() for label in labels]
    distinct = set(names)
    if not 2 <= len(distinct) <= MOST_CLASSES:
        message = f"are {len(distinct):,} different ones, where 2 to {MOST_CLASSES:,} make classes"
        raise SpecError.of("task.label_column", f"{len(names):,} labels", message, "Choose the column of the classes.")
    numeric = all(name.removeprefix("-").isdecimal() for name in distinct)
    class_names = sorted(distinct, key=int) if numeric else sorted(distinct)
    index = {name: i for i, name in enumerate(class_names)}
    return tuple(class_names), np.array([index[name] for name in names], dtype=np.int64)
