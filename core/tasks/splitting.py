"""Who lies in which split: settled by the examples' content, never by a run's seed or their order. Loads no torch."""

import hashlib
from collections.abc import Sequence

import numpy as np

from core.errors import SpecError
from core.tasks.data import DATA_SPLITS


def digest_of(content: bytes) -> str:
    """What an example's place is decided by."""
    return hashlib.sha256(b"slimboard split 1\0" + content).hexdigest()


def stratified(digests: Sequence[str], labels: np.ndarray, validation: float, test: float) -> dict[str, np.ndarray]:
    """Indices of each split in ascending order; every class gives the same shares.

    Within a class the examples with the smallest digests are the test split, the next ones the validation
    split. Equal examples (equal digests) lie in one split, under the label that the first of them bears.
    """
    label_of: dict[str, int] = {}
    for digest, label in zip(digests, labels.tolist(), strict=True):
        label_of.setdefault(digest, label)
    split_of: dict[str, str] = {}
    for label in sorted(set(label_of.values())):
        ranked = sorted(digest for digest, its_label in label_of.items() if its_label == label)
        n_test, n_held_out = round(test * len(ranked)), round((test + validation) * len(ranked))
        for rank, digest in enumerate(ranked):
            split_of[digest] = "test" if rank < n_test else "validation" if rank < n_held_out else "train"
    places = np.array([split_of[digest] for digest in digests])
    return {split: np.flatnonzero(places == split) for split in DATA_SPLITS}


def require_examples(splits: dict[str, np.ndarray], field: str, value: object) -> None:
    """Raise SpecError where a split has no example."""
    for split, indices in splits.items():
        if len(indices) == 0:
            raise SpecError.of(
                field, value, f"has too few examples: its {split} split is empty", "Add examples, or raise the shares."
            )


def contiguous(text: str, validation: float, test: float) -> dict[str, str]:
    """The text in three parts in the order train, validation, test, cut at line ends where there are any near."""
    first = _line_end(text, round(len(text) * (1 - validation - test)))
    second = max(first, _line_end(text, round(len(text) * (1 - test))))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _line_end(text: str, position: int) -> int:
    """The end of the line nearest before `position` within 1,000 characters, else `position` itself."""
    newline = text.rfind("\n", max(0, position - 1000), position)
    return newline + 1 if newline >= 0 else position
