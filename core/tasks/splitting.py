"""Assigns examples to splits by their content, never by a run's seed or their order. Loads no torch."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from core.errors import SpecError
from core.tasks.data import DATA_SPLITS


def digest_of(content: bytes) -> str:
    """The digest that determines an example's split."""
    return hashlib.sha256(b"slimboard split 1\0" + content).hexdigest()


def stratified(digests: Sequence[str], labels: np.ndarray, validation: float, test: float) -> dict[str, np.ndarray]:
    """Indices of each split, in the order of the digests; every class has the same shares.

    Within a class the examples with the smallest digests are the test split, the next ones the validation
    split. Equal examples (equal digests) are in one split, even if their labels differ.
    """
    label_of: dict[str, int] = {}
    for digest, label in zip(digests, labels.tolist(), strict=True):
        label_of[digest] = min(label, label_of.get(digest, label))
    ranked: dict[int, list[str]] = {}
    for digest in sorted(label_of):
        ranked.setdefault(label_of[digest], []).append(digest)
    split_of: dict[str, str] = {}
    for members in ranked.values():
        n_test, n_held_out = round(test * len(members)), round((test + validation) * len(members))
        for rank, digest in enumerate(members):
            split_of[digest] = "test" if rank < n_test else "validation" if rank < n_held_out else "train"
    order = _by_digest(digests, np.arange(len(digests)))
    places = np.array([split_of[digests[i]] for i in order])
    return {split: order[places == split] for split in DATA_SPLITS}


def completed(
    given: Mapping[str, np.ndarray], digests: Sequence[str], labels: np.ndarray, validation: float, test: float
) -> dict[str, np.ndarray]:
    """The data's own splits, in the order of the digests; missing ones are cut from train.

    `given` has the indices of "train" and possibly of the others. Raises SpecError if a split remains empty.
    """
    train = given["train"]
    shares = {"validation": validation, "test": test}
    cut = {split: 0.0 if split in given else share for split, share in shares.items()}
    splits = {
        split: train[indices]
        for split, indices in stratified([digests[i] for i in train], labels[train], **cut).items()
    }
    splits |= {split: _by_digest(digests, given[split]) for split in shares if split in given}
    for split, indices in splits.items():
        if len(indices) == 0:
            field = "task.source" if split == "train" else f"task.{split}"
            message = f"leaves the {split} split empty: there are only {len(digests):,} examples"
            raise SpecError.of(field, shares.get(split, ""), message, "Add examples, or change the splits' shares.")
    return splits


def _by_digest(digests: Sequence[str], indices: np.ndarray) -> np.ndarray:
    return np.array(sorted(indices.tolist(), key=lambda i: (digests[i], i)), dtype=np.int64)


def contiguous(text: str, validation: float, test: float) -> dict[str, str]:
    """The text in three parts in the order train, validation, test, cut at nearby line ends if there are any."""
    first = _line_end(text, round(len(text) * (1 - validation - test)))
    second = max(first, _line_end(text, round(len(text) * (1 - test))))
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _line_end(text: str, position: int) -> int:
    """The end of the line nearest before `position` within 1,000 characters, else `position` itself."""
    newline = text.rfind("\n", max(0, position - 1000), position)
    return newline + 1 if newline >= 0 else position
