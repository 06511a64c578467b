"""Which units stay: exact counts, at least some everywhere, widths as multiples."""

import pytest
import torch

from core.algorithms.structured.selection import best, global_counts, layer_counts, rounded

SCORES = {"a": torch.tensor([5.0, 1.0, 4.0, 0.5]), "b": torch.tensor([0.1, 0.2, 0.3, 6.0])}


@pytest.mark.parametrize(
    ("n_kept", "count", "multiple", "expected"),
    [
        (12, 48, 8, 16),
        (11.9, 48, 8, 8),
        (0.2, 48, 8, 8),
        (47, 48, 8, 48),
        (42, 44, 8, 40),
        (44, 44, 8, 44),
        (3, 5, 8, 5),
    ],
)
def test_widths_go_to_the_nearest_multiple(n_kept, count, multiple, expected):
    assert rounded(n_kept, count, multiple) == expected


def test_each_layer_loses_its_share():
    assert layer_counts(SCORES, 0.5) == {"a": 2, "b": 2}
    assert layer_counts(SCORES, 0.99) == {"a": 1, "b": 1}


def test_over_all_layers_the_smallest_go_and_one_always_stays():
    assert global_counts(SCORES, 4) == {"a": 3, "b": 1}
    assert global_counts(SCORES, 5) == {"a": 4, "b": 1}
    low = {"a": SCORES["a"], "b": SCORES["b"] / 1000}
    assert global_counts(low, 4) == {"a": 3, "b": 1}
    assert sum(global_counts(low, 6).values()) == 6


def test_the_best_are_named_in_their_order():
    assert best(SCORES["a"], 2).tolist() == [0, 2]
    assert best(torch.zeros(4), 2).tolist() == [0, 1]
