"""N:M pruning on whole models: exactly n of every m inputs, the largest, under masks that a training keeps."""

import pytest
import torch

from core.algorithms.masks import prunable_weights
from core.errors import SpecError
from core.models.resnet import Resnet
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.training.train import Train
from tests.core.fakes import context, plane_subject


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 8)])
def test_the_largest_n_of_every_m_inputs_survive(n, m):
    subject = plane_subject()
    before = subject.model.up.weight.detach().clone().view(-1, m)
    NmPruning(n=n, m=m).apply(subject, context(subject))
    after = subject.model.up.weight.detach().view(-1, m)
    kept = after != 0
    assert (kept.sum(dim=1) == n).all()
    assert torch.equal(after[kept], before[kept])
    assert (before.abs().masked_fill(~kept, 9).amin(1) > before.abs().masked_fill(kept, 0).amax(1)).all()
    assert (subject.model.head.weight != 0).all()
    assert subject.details["layers"] == [{"name": "up", "shape": [16, 8], "weights": 128, "sparsity": 1 - n / m}]


def test_training_after_it_keeps_the_mask():
    subject = plane_subject()
    NmPruning().apply(subject, context(subject))
    mask = subject.mask("up.weight").clone()
    before = subject.model.up.weight.detach().clone()
    Train(steps=5, evaluations=0).apply(subject, context(subject))
    assert torch.equal(subject.model.up.weight != 0, mask)
    assert not torch.equal(subject.model.up.weight, before)


def test_what_was_pruned_stays_pruned_and_the_others_fill_the_group():
    subject = plane_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    old = subject.mask("up.weight")
    NmPruning().apply(subject, context(subject))
    mask = subject.mask("up.weight")
    assert not (mask & ~old).any()
    assert torch.equal(mask.view(-1, 4).sum(1), old.view(-1, 4).sum(1).clamp(max=2))


def test_a_kept_weight_that_is_zero_goes_before_a_pruned_one():
    subject = plane_subject()
    mask = torch.ones(16, 8, dtype=torch.bool)
    mask[:, 0] = False
    subject.model.up.weight.data[:, 1] = 0
    subject.constrain("up.weight", mask=mask)
    NmPruning(n=3, m=4).apply(subject, context(subject))
    assert torch.equal(subject.mask("up.weight")[:, :4], mask[:, :4])


def test_layers_that_cannot_be_grouped_are_refused_or_skipped():
    subject = plane_subject()
    subject.models["main"] = Resnet(depth=8, width=4, image_size=(8, 8), channels=1, n_classes=10)
    with pytest.raises(SpecError, match="the 1 input channels of conv"):
        NmPruning().check(subject)
    NmPruning(indivisible="skip").apply(subject, context(subject))
    shares = {name: float((w == 0).float().mean()) for name, w in prunable_weights(subject.model).items()}
    assert shares.pop("conv.weight") == 0
    assert set(shares.values()) == {0.5}
    row = subject.details["layers"][0]
    assert (row["name"], row["sparsity"]) == ("conv", 0.0)


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_other_scores_keep_the_pattern_and_what_was_pruned(score, n, m):
    subject = plane_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    old = subject.mask("up.weight")
    NmPruning(n=n, m=m, score=score).apply(subject, context(subject))
    mask, weight = subject.mask("up.weight"), subject.model.up.weight
    assert not (mask & ~old).any()
    assert torch.equal(mask.view(-1, m).sum(1), old.view(-1, m).sum(1).clamp(max=n))
    assert torch.equal(weight != 0, mask)


def test_wanda_weighs_by_the_inputs_and_sparsegpt_changes_what_it_keeps():
    before = plane_subject().model.up.weight.detach()
    subject = plane_subject()
    subject.task.points[:, 1] *= 100
    NmPruning(score="wanda").apply(subject, context(subject))
    assert subject.mask("up.weight")[:, 1].all()
    assert torch.equal(subject.model.up.weight, before * subject.mask("up.weight"))
    subject = plane_subject()
    NmPruning(score="sparsegpt").apply(subject, context(subject))
    assert not torch.equal(subject.model.up.weight, before * subject.mask("up.weight"))
    assert subject.details["layers"] == [{"name": "up", "shape": [16, 8], "weights": 128, "sparsity": 0.5}]


def test_n_must_be_below_m():
    with pytest.raises(SpecError, match="n = 4"):
        NmPruning(n=4, m=4).check(plane_subject())


def test_label_is_the_pattern_and_the_score():
    assert NmPruning(n=1, m=8).label() == "1:8"
    assert NmPruning(score="wanda").label() == "2:4 wanda"
