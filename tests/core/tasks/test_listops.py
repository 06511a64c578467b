"""The arena's own recursion is the oracle: of a text's value, and of the distribution of the texts."""

import random

import numpy as np
import pytest

from core.errors import SpecError
from core.spec.model import TaskSpec
from core.tasks.preview import load_preview
from core.tasks.sources import listops
from core.tasks.sources.listops import ListOps, Trees


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listops, "HELD_OUT", 200)
    monkeypatch.setattr(listops, "DRAWN_TOKENS", 2**17)


def value_of(text: str) -> int:
    """By replacing the innermost operations, until a digit is left."""
    operations = {
        "^": max,
        "_": min,
        "~": lambda digits: int(np.median(digits)),
        "+": lambda digits: sum(digits) % 10,
    }
    while len(text) > 1:
        end = text.index("]")
        start = max(text.rindex(name, 0, end) for name in operations if name in text[:end])
        value = operations[text[start]]([int(digit) for digit in text[start + 1 : end]])
        text = f"{text[:start]}{value}{text[end + 1 :]}"
    return int(text)


def grown(depth: int, greatest: int, arguments: int) -> tuple[int, int, int]:
    """Tokens, operations and greatest depth of a tree as the arena's `generate_tree` makes it."""
    if depth >= greatest or random.random() > 0.25:
        return 1, 0, depth
    parts = [grown(depth + 1, greatest, arguments) for _ in range(random.randint(2, arguments))]
    return 2 + sum(p[0] for p in parts), 1 + sum(p[1] for p in parts), max(p[2] for p in parts)


def test_oracle_by_hand():
    assert value_of("^29_47]0]") == 9 and value_of("~1298]") == 5 and value_of("+99_3]]") == 1


@pytest.mark.parametrize("settings", [{}, {"length": 100, "shortest": 10, "depth": 3, "arguments": 4}])
def test_labels_are_the_values(settings):
    data = ListOps(examples=300, **settings).read("listops")
    for split, n in (("train", 300), ("validation", 200), ("test", 200)):
        assert len(data.texts[split]) == n
        assert [value_of(text) for text in data.texts[split]] == data.labels[split].tolist()


def test_lengths_and_depths_are_within_the_limits():
    data = ListOps(examples=300, length=40, shortest=20, depth=4, arguments=5).read("listops")
    texts = [text for split in data.texts.values() for text in split]
    assert len(set(texts)) == len(texts) == 700
    assert min(map(len, texts)) == 21 and max(map(len, texts)) == 39
    depths = [max(np.cumsum([(c in "^_~+") - (c == "]") for c in text])) for text in texts]
    assert max(depths) == 3  # operations at depths 1, 2 and 3, whose arguments at depth 4 are digits


def test_trees_are_distributed_as_the_arenas():
    random.seed(1)
    theirs = []
    while len(theirs) < 6000:
        tokens, operations, depth = grown(1, 4, 5)
        if operations:
            theirs.append((tokens, operations, depth))
    trees = Trees(np.random.default_rng(1), 6000, 4, 5, longest=400)
    texts, _ = trees.finished()
    assert len(texts) == 6000  # none is longer
    ours = [
        (len(t), t.count("]"), 1 + max(np.cumsum([(c in "^_~+") - (c == "]") for c in t])) if "]" in t else 1)
        for t in texts
    ]
    for one, other in zip(np.transpose(ours).astype(float), np.transpose(theirs).astype(float), strict=True):
        error = np.hypot(one.std(), other.std()) / np.sqrt(6000)
        assert abs(one.mean() - other.mean()) < 4 * error
        assert one.std() == pytest.approx(other.std(), rel=0.08)


def test_operators_and_digits_are_drawn_alike():
    text = "".join(Trees(np.random.default_rng(2), 4000, 3, 5, longest=200).finished()[0])
    for characters in ("^_~+", "0123456789"):
        counts = [text.count(character) for character in characters]
        assert min(counts) > 0.93 * max(counts)


def test_test_is_the_same_with_more_examples():
    few, many = (ListOps(examples=n, length=64).read("listops") for n in (100, 200))
    assert few.texts["test"] == many.texts["test"] and few.texts["train"] == many.texts["train"][:100]


def test_what_is_drawn_is_kept(home, monkeypatch):
    first = ListOps(examples=100, length=64).read("listops")
    monkeypatch.setattr(listops, "_batches", None)
    again = ListOps(examples=100, length=64).read("listops")
    assert again.texts == first.texts and [path.suffix for path in (home / "cache").iterdir()] == [".npy"]


def test_lengths_that_hardly_a_tree_has_are_refused():
    with pytest.raises(SpecError, match=r"task.shortest = 60.*fewer than one in 10,000"):
        ListOps(length=64, shortest=60, depth=2, arguments=3).read("listops")


def test_preview_tells_what_guessing_gives():
    seen = load_preview(TaskSpec(source="builtin:listops", examples=300, length=64))
    assert seen.guesses["any digit"] == 10 and 10 < seen.guesses["the most frequent one"] < 25
    assert len(seen.items) == 12 and all(value_of(item.text) == int(item.label) for item in seen.items)
