import math

import pytest
import torch

from core.tasks.classification import Classification

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
BATCH = {"labels": torch.tensor([0, 0, 0, 1])}


def test_scores_by_hand():
    task = Classification()
    examples = task.per_example(LOGITS, BATCH)
    assert examples["correct"].tolist() == [1, 0, 1, 0]
    scores = task.summarize(examples)
    assert next(iter(scores)) == task.score.name
    assert scores["accuracy"] == 50
    assert scores["balanced accuracy"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert scores["cross entropy"] == pytest.approx((2 * right + 2 * wrong) / 4)
    assert task.loss(LOGITS, BATCH).item() == pytest.approx(scores["cross entropy"])


def test_subset_is_scored_by_itself():
    task = Classification()
    examples = {key: value[2:] for key, value in task.per_example(LOGITS, BATCH).items()}
    scores = task.summarize(examples)
    assert scores["accuracy"] == 50 and scores["balanced accuracy"] == 50
    only_wrong = task.summarize({key: value[1:] for key, value in examples.items()})
    assert only_wrong["accuracy"] == 0 and only_wrong["balanced accuracy"] == 0  # the absent class counts nothing
