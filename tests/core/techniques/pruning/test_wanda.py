"""Wanda: the score by hand, exact counts in every row, masks by the inputs that pruned blocks give, and old masks."""

import copy
import math

import pytest
import torch
from torch import nn

from core.algorithms.masks import keep_largest_in_rows, nm_mask, prunable_weights
from core.calibration import input_rows, matrices_of
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.models.gpt import Gpt
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.wanda import Wanda, keep_layer, keep_rows
from core.techniques.pruning.wanda_layers import wanda_scores
from core.techniques.training.train import Train
from tests.core.calibration.models import BLOCKS, subject_of
from tests.core.fakes import context, plane_subject


def test_the_score_weighs_magnitude_by_input_norm():
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [4.0, 1.0, 1.0, -0.5]])
    scores = wanda_scores(weight, torch.tensor([9.0, 1.0, 1.0, 1.0]))
    assert scores.tolist() == [[9, 2, 3, 4], [36, 1, 1, 0.5]]
    assert keep_rows(scores, 0.5).int().tolist() == [[1, 0, 0, 1], [1, 1, 0, 0]]  # not the four largest of all
    assert keep_layer(scores, 0.5).int().tolist() == [[1, 0, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize(("sparsity", "d"), [(0.0, 8), (0.5, 9), (0.29, 100), (0.7, 10), (0.99, 64)])
def test_the_floor_of_the_share_goes_in_every_row(sparsity, d):
    kept = keep_rows(torch.rand(5, d, generator=torch.Generator().manual_seed(0)), sparsity)
    assert (~kept).sum(1).tolist() == [math.floor(round(sparsity * d, 6))] * 5


def masks_by_running_the_whole_model(subject: Subject, blocks: list[list[str]], choose) -> dict[str, torch.Tensor]:
    """A slow oracle: before each block, all examples go through the whole model as it is pruned so far."""
    model, masks = copy.deepcopy(subject.model), {}
    batch = subject.task.batch(torch.arange(len(subject.task)))
    for layers in blocks:
        norms = {}
        for name in layers:

            def note(layer, args, norms=norms, name=name):
                norms[name] = input_rows(layer, args[0]).norm(dim=1)

            handle = model.get_submodule(name).register_forward_pre_hook(note)
            with torch.no_grad():
                logits_of(model, batch)
            handle.remove()
        for name in layers:
            weight = model.get_parameter(f"{name}.weight")
            scores = matrices_of(weight)[0].abs() * norms[name]
            mask = choose(scores)
            masks[name] = mask
            with torch.no_grad():
                kept = matrices_of(weight)[0] * mask
                weight.copy_(kept if weight.dim() == 2 else kept.unflatten(1, (*weight.shape[2:], -1)).movedim(-1, 1))
    return masks


def block_layers(model: nn.Module) -> list[list[str]]:
    """Layers that are pruned together: a block's, or each alone where there are no blocks."""
    names = [name.removesuffix(".weight") for name in prunable_weights(model)]
    blocks = [block.name for block in anatomy(model).blocks]
    return [[n for n in names if n.startswith(f"{block}.")] for block in blocks] or [[name] for name in names]


@pytest.mark.parametrize("settings", [{}, {"sparsity": 0.7}, {"structure": "n:m", "n": 1, "m": 4}], ids=str)
@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "opt", "gpt2", "vit", "builtin:resnet"])
def test_masks_are_those_of_inputs_from_the_pruned_blocks_before(name, settings):
    subject = subject_of(name)
    step = Wanda(indivisible="skip", **settings)

    def choose(scores: torch.Tensor) -> torch.Tensor:
        if step.structure == "n:m":
            return nm_mask(scores, step.n, step.m) if scores.shape[1] % 4 == 0 else torch.ones_like(scores).bool()
        return keep_largest_in_rows(scores, scores.shape[1] - int(step.sparsity * scores.shape[1]))

    blocks = block_layers(subject.model)
    if step.structure == "n:m":
        blocks = [layers for layers in blocks if layers != ["conv"]]
    expected = masks_by_running_the_whole_model(subject, blocks, choose)
    step.apply(subject, context(subject))
    for layer, mask in expected.items():
        found = matrices_of(subject.mask(f"{layer}.weight"))[0]
        assert float((found == mask).float().mean()) > 0.998, layer  # ties in the last bit apart
        assert not subject.model.get_parameter(f"{layer}.weight")[~subject.mask(f"{layer}.weight")].any()


def test_n_of_m_holds_along_the_input_channels():
    subject = subject_of("builtin:resnet")
    Wanda(structure="n:m", n=1, m=2, indivisible="skip").apply(subject, context(subject))
    mask = subject.mask("blocks.0.conv1.weight")
    assert (mask.view(4, 2, 2, 3, 3).sum(2) == 1).all()
    assert subject.mask("conv.weight") is None


def test_kept_weights_keep_their_values():
    subject = subject_of("llama")
    before = {name: weight.clone() for name, weight in prunable_weights(subject.model).items()}
    Wanda().apply(subject, context(subject))
    for name, weight in before.items():
        assert torch.equal(subject.model.get_parameter(name), weight * subject.mask(name))
    assert {row["sparsity"] for row in subject.details["layers"]} == {0.5}


@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"structure": "n:m"}], ids=str)
def test_what_was_pruned_stays_pruned_and_counts(settings):
    subject = plane_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    old = subject.mask("up.weight")
    Wanda(**settings).apply(subject, context(subject))
    mask = subject.mask("up.weight")
    assert not (mask & ~old).any()
    if settings.get("structure"):
        assert torch.equal(mask.view(-1, 4).sum(1), old.view(-1, 4).sum(1).clamp(max=2))
    else:
        assert torch.equal(mask.sum(1), old.sum(1).clamp(max=4))


def test_a_kept_weight_that_is_zero_goes_after_a_pruned_one():
    subject = plane_subject()
    mask = torch.ones(16, 8, dtype=torch.bool)
    mask[:, 0] = False
    subject.model.up.weight.data[:, 1] = 0
    subject.constrain("up.weight", mask=mask)
    Wanda(sparsity=1 / 8).apply(subject, context(subject))
    assert torch.equal(subject.mask("up.weight"), mask)


@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"structure": "n:m"}], ids=str)
def test_outputs_change_less_than_by_magnitude_where_inputs_differ_in_size(settings):
    torch.manual_seed(0)
    x = torch.randn(512, 8) * torch.tensor([8.0, 0.2, 1.0, 3.0, 0.1, 5.0, 0.5, 1.0])
    errors = {}
    for technique in ("wanda", "magnitude"):
        subject = plane_subject()
        subject.task.points = x
        subject.task.labels = torch.zeros(512).long()
        dense = subject.model.up(x).detach()
        if technique == "wanda":
            Wanda(calibration_examples=512, **settings).apply(subject, context(subject))
        else:
            score = subject.model.up.weight.detach().abs()
            mask = nm_mask(score, 2, 4) if "structure" in settings else keep_largest_in_rows(score, 4)
            subject.constrain("up.weight", mask=mask)
        errors[technique] = float((subject.model.up(x).detach() - dense).square().mean())
    assert errors["wanda"] < 0.6 * errors["magnitude"]


def test_a_training_after_it_keeps_the_mask():
    subject = plane_subject()
    Wanda().apply(subject, context(subject))
    mask = subject.mask("up.weight").clone()
    Train(steps=4, evaluations=0).apply(subject, context(subject))
    assert torch.equal(subject.model.up.weight != 0, mask)


def test_patterns_that_fit_no_layer_are_refused_before_anything_is_computed():
    subject = Subject(
        {"main": Gpt(**BLOCKS, ffn="mlp", vocab_size=9, length=4, positions="learned", tied=True)}, None, {}
    )
    with pytest.raises(SpecError, match="m = 7"):
        Wanda(structure="n:m", n=2, m=7).check(subject)
    with pytest.raises(SpecError, match="n = 4"):
        Wanda(structure="n:m", n=4, m=4).check(subject)
    Wanda(n=4, m=4).check(subject)  # is not asked for


def test_label_is_the_share_or_the_pattern():
    assert Wanda(sparsity=0.6).label() == "60 %"
    assert Wanda(structure="n:m", n=4, m=8).label() == "4:8"
