import numpy as np
import pytest

from core.errors import SpecError
from core.tasks.data import calibration_indices
from core.tasks.splitting import completed, contiguous, digest_of, stratified

DIGESTS = [digest_of(str(i).encode()) for i in range(100)]
LABELS = np.array([0] * 60 + [1] * 40)


def test_every_class_gives_its_shares():
    splits = stratified(DIGESTS, LABELS, validation=0.1, test=0.25)
    counts = {split: np.bincount(LABELS[indices]).tolist() for split, indices in splits.items()}
    assert counts == {"train": [39, 26], "validation": [6, 4], "test": [15, 10]}
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(100))


def test_order_of_the_rows_changes_nothing():
    shuffled = np.random.default_rng(0).permutation(100)
    splits = stratified(DIGESTS, LABELS, 0.1, 0.25)
    again = stratified([DIGESTS[i] for i in shuffled], LABELS[shuffled], 0.1, 0.25)
    for split, indices in splits.items():
        assert [DIGESTS[i] for i in indices] == [DIGESTS[shuffled[i]] for i in again[split]]


def test_equal_examples_lie_in_one_split():
    splits = stratified(DIGESTS + DIGESTS, np.concatenate([LABELS, LABELS]), 0.2, 0.3)
    for indices in splits.values():
        assert {i % 100 for i in indices} == {i - 100 for i in indices if i >= 100}


def test_equal_examples_of_two_labels_lie_together_whichever_comes_first():
    digests = DIGESTS + DIGESTS[:60]
    labels = np.concatenate([LABELS, np.ones(60, dtype=np.int64)])
    first = stratified(digests, labels, 0.1, 0.25)
    again = stratified(digests[::-1], labels[::-1], 0.1, 0.25)
    for split, indices in first.items():
        assert {digests[i] for i in indices} == {digests[::-1][i] for i in again[split]}


def test_given_test_split_is_kept_and_validation_is_cut_from_train():
    given = {"train": np.arange(80), "test": np.arange(80, 100)}
    splits = completed(given, DIGESTS, LABELS, validation=0.1, test=0.5)
    assert sorted(splits["test"].tolist()) == list(range(80, 100))
    assert len(splits["validation"]) == 8 and set(splits["validation"]) < set(range(80))
    assert len(splits["train"]) == 72


def test_empty_split_names_its_setting():
    with pytest.raises(SpecError) as error:
        completed({"train": np.arange(3)}, DIGESTS[:3], LABELS[:3], validation=0.1, test=0.3)
    assert error.value.problems[0].field == "task.validation"


def test_text_is_cut_at_line_ends_and_nothing_is_lost():
    text = "".join(f"line {i}\n" for i in range(100))
    parts = contiguous(text, validation=0.1, test=0.2)
    assert parts["train"] + parts["validation"] + parts["test"] == text
    assert parts["train"].endswith("\n") and parts["validation"].endswith("\n")
    assert len(parts["test"]) == pytest.approx(0.2 * len(text), abs=10)


def test_calibration_is_spread_over_train():
    assert calibration_indices(3).tolist() == [0, 1, 2]
    chosen = calibration_indices(5000)
    assert len(set(chosen.tolist())) == 1024 and chosen[0] == 0 and chosen[-1] == 4999
