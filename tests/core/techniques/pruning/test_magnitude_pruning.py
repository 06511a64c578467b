"""Magnitude pruning: exact counts per layer and globally; the cubic ramp; masks that only grow."""

import pytest
import torch
from torch import nn

from core.algorithms.masks import prunable_weights
from core.errors import SpecError
from core.models.resnet import Resnet
from core.techniques.pruning.magnitude_pruning import MagnitudePruning, cubic_sparsity, magnitude_masks
from core.techniques.training.train import Train
from tests.core.fakes import TwoLayers, context, plane_subject, taken_up

WEIGHTS = {"a": torch.tensor([[1.0, -2.0], [3.0, -4.0]]), "b": torch.tensor([[0.1, -5.0], [0.2, 6.0]])}


def two_hidden_layers():
    subject = plane_subject()
    torch.manual_seed(1)
    model = TwoLayers()
    model.up = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 16))
    subject.models["main"] = model
    return subject


def shares(subject) -> dict[str, float]:
    return {name: float((weight == 0).float().mean()) for name, weight in prunable_weights(subject.model).items()}


def test_layers_prune_their_own_smallest():
    masks = magnitude_masks(WEIGHTS, {}, 0.5, together=False)
    assert masks["a"].int().tolist() == [[0, 0], [1, 1]]
    assert masks["b"].int().tolist() == [[0, 1], [0, 1]]


def test_globally_the_smallest_of_all_layers_go():
    masks = magnitude_masks(WEIGHTS, {}, 0.375, together=True)
    assert masks["a"].int().tolist() == [[0, 1], [1, 1]]
    assert masks["b"].int().tolist() == [[0, 1], [0, 1]]


def test_what_was_pruned_stays_pruned_and_counts():
    old = {"a": torch.tensor([[True, True], [True, False]])}  # the largest one
    assert magnitude_masks(WEIGHTS, old, 0.5, together=False)["a"].int().tolist() == [[0, 1], [1, 0]]
    assert magnitude_masks(WEIGHTS, old, 0.0, together=False)["a"].int().tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_target_is_met_exactly(sparsity, scope):
    subject = two_hidden_layers()
    MagnitudePruning(sparsity=sparsity, scope=scope).apply(subject, context(subject))
    found = shares(subject)
    sizes = {name: weight.numel() for name, weight in prunable_weights(subject.model).items()}
    if scope == "layer":
        assert {n: round(s * sizes[n]) for n, s in found.items()} == {n: round(sparsity * s) for n, s in sizes.items()}
    assert sum(round(s * sizes[n]) for n, s in found.items()) == pytest.approx(sparsity * sum(sizes.values()), abs=1)
    assert [row["sparsity"] for row in subject.details["layers"]] == pytest.approx(list(found.values()))
    assert (subject.model.head.weight != 0).all()


def test_convolutions_are_pruned_too():
    subject = plane_subject()
    subject.models["main"] = Resnet(depth=8, width=4, image_size=(8, 8), channels=3, n_classes=10)
    MagnitudePruning(sparsity=0.5).apply(subject, context(subject))
    assert set(shares(subject).values()) == {0.5}


def test_the_ramp_is_cubic():
    assert cubic_sparsity(0.0, 0.2, 0.8) == pytest.approx(0.2)
    assert cubic_sparsity(0.5, 0.0, 0.8) == pytest.approx(0.7)  # 0.8 - 0.8 / 8
    assert cubic_sparsity(1.0, 0.2, 0.8) == pytest.approx(0.8)


class Watching(MagnitudePruning):
    """Notes the sparsity that each update leaves."""

    _seen: list = []

    def after_optimizer(self, update):
        super().after_optimizer(update)
        mask = self._subject.mask("up.weight")
        self._seen.append(0.0 if mask is None else 1 - float(mask.float().mean()))


def test_inside_a_training_masks_grow_along_the_ramp_and_stay_enforced(monkeypatch):
    subject = plane_subject()
    method = Watching(sparsity=0.75, ramp_start=0.2, ramp_end=0.7, update_every=3)
    monkeypatch.setattr(Train, "bound_methods", lambda self: [method])
    Train(steps=40, evaluations=0).apply(subject, context(subject))
    first, last = 8, 27
    due = [index for index in range(40) if first <= index <= last and ((index - first) % 3 == 0 or index == last)]
    expected, level = [], 0.0
    for index in range(40):
        if index in due:
            level = round(cubic_sparsity((index - first) / (last - first), 0.0, 0.75) * 128) / 128
        expected.append(level)
    assert method._seen == pytest.approx(expected)
    assert shares(subject)["up.weight"] == 0.75
    assert subject.details["layers"][0]["sparsity"] == 0.75


def test_the_ramp_begins_where_an_earlier_step_ended():
    subject = plane_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    before = subject.mask("up.weight")
    Train(steps=10, evaluations=0, methods=[{"magnitude_pruning": {"sparsity": 0.5}}]).apply(subject, context(subject))
    assert not (subject.mask("up.weight") & ~before).any()
    assert shares(subject)["up.weight"] == 0.5
    assert subject.compressed


@pytest.mark.parametrize("at", [9, 15, 27])
def test_a_ramp_that_was_interrupted_ends_as_one_that_was_not(at, tmp_path):
    train = Train(steps=30, evaluations=0, methods=[{"magnitude_pruning": {"sparsity": 0.7, "update_every": 4}}])
    (whole, _), (resumed, _) = taken_up(train, plane_subject, tmp_path, at=at)
    assert torch.equal(resumed.model.up.weight, whole.model.up.weight)
    assert torch.equal(resumed.mask("up.weight"), whole.mask("up.weight"))


def test_an_empty_ramp_is_refused():
    with pytest.raises(SpecError, match=r"ramp_start = 0.8: must be less than ramp_end, which is 0.5"):
        MagnitudePruning(ramp_start=0.8, ramp_end=0.5).check(plane_subject())


def test_label_tells_share_and_scope():
    assert MagnitudePruning(sparsity=0.9).label() == "90 %"
    assert MagnitudePruning(scope="global").label() == "50 % global"
