"""Masks: exact counts, ties by index, groups along input channels, and refusals that name the remedy."""

import pytest
import torch
from torch import nn

from core.algorithms.masks import check_pattern, divisible_weights, keep_largest, nm_mask, prunable_weights
from core.errors import SpecError
from core.models.resnet import Resnet


def resnet(width: int = 8) -> Resnet:
    return Resnet(depth=8, width=width, image_size=(8, 8), channels=3, n_classes=10)


def test_the_largest_are_kept_and_of_equals_the_first():
    scores = torch.tensor([[1.0, 2.0, 2.0], [2.0, 0.0, 3.0]])
    assert keep_largest(scores, 3).int().tolist() == [[0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("n_kept", [0, 1, 17, 59, 60])
def test_exactly_as_many_are_kept_even_of_equals(n_kept):
    assert int(keep_largest(torch.ones(6, 10), n_kept).sum()) == n_kept
    scores = torch.randint(0, 4, (6, 10), generator=torch.Generator().manual_seed(0)).float()
    kept = keep_largest(scores, n_kept)
    assert int(kept.sum()) == n_kept
    if 0 < n_kept < 60:
        assert scores[kept].min() >= scores[~kept].max()


def test_two_of_four_by_hand_with_ties_by_index():
    scores = torch.tensor([[5.0, 1.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]])
    assert nm_mask(scores, 2, 4).int().tolist() == [[1, 0, 1, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (4, 8), (16, 32), (1, 32)])
def test_every_group_keeps_exactly_the_n_that_sorting_keeps(n, m):
    scores = torch.randint(0, 9, (6, 2 * m), generator=torch.Generator().manual_seed(m)).float()
    order = scores.view(6, 2, m).argsort(dim=2, descending=True, stable=True)[..., :n]
    expected = torch.zeros(6, 2, m).scatter(2, order, 1).bool().view(6, 2 * m)
    assert torch.equal(nm_mask(scores, n, m), expected)


def test_groups_of_a_convolution_lie_along_its_input_channels():
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = nm_mask(weight.abs(), 2, 4)
    assert mask.shape == weight.shape
    assert (mask.view(6, 2, 4, 3, 3).sum(dim=2) == 2).all()
    assert torch.equal(mask[1, :4, 2, 0], keep_largest(weight[1, :4, 2, 0].abs(), 2))


def test_the_head_is_left_out_and_convolutions_are_in():
    names = prunable_weights(resnet())
    assert "conv.weight" in names
    assert "head.weight" not in names
    assert len(names) == 9


def test_patterns_that_cannot_be_are_refused():
    with pytest.raises(SpecError, match=r"n = 4: must be less than m, which is 4. Choose a number from 1 to 3"):
        check_pattern(resnet(), 4, 4, "skip")
    with pytest.raises(SpecError, match=r"divide the 3 input channels of conv.*indivisible: skip"):
        check_pattern(resnet(), 2, 4, "refuse")
    check_pattern(resnet(), 2, 4, "skip")
    assert "conv.weight" not in divisible_weights(resnet(), 4)


def test_a_model_without_weights_to_prune_is_refused():
    with pytest.raises(SpecError, match="Sequential"):
        prunable_weights(nn.Sequential(nn.ReLU()))
