"""The classes of a data set loaded by `datasets`, and those of its examples."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.errors import SpecError
from core.tasks.columns import classes_of, row_of
from core.tasks.sources.own_data import Labelled

if TYPE_CHECKING:
    from datasets import Dataset

UNLABELLED = -1  # what the Hub's data sets put where a test's labels are secret
MOST_LISTED = 12


def is_unlabelled(rows: "Dataset", label: str) -> bool:
    """Whether all examples of a split lack a label; lists of labels are rejected later, with their place."""
    kind = rows.features.get(label)
    return getattr(kind, "dtype", "list") != "list" and set(rows.unique(label)) == {UNLABELLED}


def labels_of(splits: Mapping[str, "Dataset"], label: str) -> Labelled:
    """Classes by the data set's class names, else by the labels themselves."""
    ends = np.cumsum([len(rows) for rows in splits.values()])
    given = {split: np.arange(end - len(splits[split]), end) for split, end in zip(splits, ends, strict=True)}

    def place(index: int) -> str:
        split = next(split for split, indices in given.items() if len(indices) and index <= indices[-1])
        return f"{split} {row_of(index - int(given[split][0]))}"

    names = _names_of(splits["train"], label)
    if names is None:
        class_names, labels = classes_of([value for rows in splits.values() for value in rows[label][:]], place)
    else:
        numbers = [number for rows in splits.values() for number in _numbers_in(rows, label, names)]
        unlabelled = [index for index, number in enumerate(numbers) if number is None]
        if unlabelled:
            message = f"has no label in {len(unlabelled):,} rows, the first of them {place(unlabelled[0])}"
            raise SpecError.of("task.label_column", label, message, "Choose splits in which all examples have labels.")
        class_names, labels = names, np.array(numbers, dtype=np.int64)
    return Labelled(labels, class_names, given)


def _names_of(rows: "Dataset", label: str) -> tuple[str, ...] | None:
    names = getattr(rows.features[label], "names", None)
    return tuple(names) if names else None


def _numbers_in(rows: "Dataset", label: str, names: tuple[str, ...]) -> list[int | None]:
    """Each example's class among the train split's `names`; None if it has no label.

    A split may list the same classes in another order: its own names count. Raises SpecError if it has other classes.
    """
    own = _names_of(rows, label)
    if own is None or not set(own) <= set(names):
        there = ", ".join((own or ())[:MOST_LISTED]) or "none"
        message = f"has the classes {', '.join(names[:MOST_LISTED])} in train but {there} in another split"
        raise SpecError.of("task.label_column", label, message, "Use the same classes in every split.")
    number_by_own = range(len(names)) if own == names else [names.index(name) for name in own]
    return [_number(value, number_by_own) for value in rows[label][:]]


def _number(value: int | None, number_by_own: Sequence[int]) -> int | None:
    return None if value is None or not 0 <= value < len(number_by_own) else number_by_own[value]
