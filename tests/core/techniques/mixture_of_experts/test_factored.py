"""SVD on experts: each is factored as a linear layer of its own, counted, trained and stored by its factors."""

import pytest
import torch

from core.artifacts import artifact
from core.measure import compute
from core.nn.experts.low_rank import LowRankExpertLinear
from core.nn.experts.packed import PackedExpertLinear, SparseExpertLinear
from core.nn.experts.segments import Segments
from core.nn.low_rank_linear import LowRankLinear
from core.tasks.base import logits_of
from core.techniques.low_rank.svd import Svd
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.pruning.wanda import Wanda
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.mixture_of_experts.subjects import STEPS, applied, gpt, mixtures, tokens
from tests.core.techniques.pruning.families import loaded, subject_of

RANK = 3
LAYER = "blocks.1.ffn.experts.up"


def with_experts(name):
    """Every second block has experts that differ, biases too."""
    subject = applied(name, gpt(trained=True))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in mixtures(subject)["blocks.1.ffn"].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return subject


@pytest.mark.parametrize("name", STEPS)
def test_each_expert_is_factored_as_a_linear_layer_of_its_own(name):
    subject = with_experts(name)
    experts = subject.model.blocks[1].ffn.experts
    expected = {
        part: [LowRankLinear.from_linear(linear, RANK) for linear in layer.linears()]
        for part, layer in experts.layers().items()
    }
    Svd(rank=RANK).check(subject)
    Svd(rank=RANK).apply(subject, context(subject))
    counts = torch.tensor([2, 0, 3, 1])
    expert = torch.arange(4).repeat_interleave(counts)
    rows = {row["name"]: row for row in subject.details["layers"]}
    for part, layers in expected.items():
        found = experts.get_submodule(part)
        assert isinstance(found, LowRankExpertLinear)
        x = torch.randn(6, found.in_features, dtype=torch.float64)
        by_hand = torch.stack([layers[e](row) for e, row in zip(expert, x, strict=True)])
        torch.testing.assert_close(found(x, Segments(counts)), by_hand)
        row = rows[f"blocks.1.ffn.experts.{part}"]
        assert (row["rank"], row["shape"]) == (RANK, [4 * found.out_features, found.in_features])


def test_the_error_of_a_layer_is_that_of_all_experts_discarded_singular_values():
    subject = with_experts("moe")
    values = torch.linalg.svdvals(subject.model.get_submodule(LAYER).matrices().detach())  # [experts, 16]
    Svd(rank=RANK).apply(subject, context(subject))
    row = next(row for row in subject.details["layers"] if row["name"] == LAYER)
    assert row["relative error"] == pytest.approx(float(values[:, RANK:].norm() / values.norm()), rel=1e-5)


def test_the_share_kept_is_that_of_each_expert():
    subject = with_experts("moe")
    Svd(kept=0.5).apply(subject, context(subject))
    assert subject.model.get_submodule(LAYER).rank == 6  # 0.5 * 16 * 48 / (16 + 48)


@pytest.mark.parametrize("name", STEPS)
def test_experts_are_counted_by_their_factors(name):
    subject = applied(name)
    batch = {"input_ids": tokens(batch=1)}
    before = compute.count(subject.model, batch, per_token=True)
    Svd(rank=RANK).apply(subject, context(subject))
    after = compute.count(subject.model, batch, per_token=True)
    one, dense = 0, 0  # what an expert lost, and all other layers
    for row in subject.details["layers"]:
        outputs, inputs = row["shape"]
        if "experts" in row["name"]:
            outputs //= 4
            one += outputs * inputs - RANK * (outputs + inputs)
        else:
            dense += outputs * inputs - RANK * (outputs + inputs)
    chosen = 1 if name == "switch" else 2
    assert before.parameters - after.parameters == 4 * one + dense
    assert before.active_parameters - after.active_parameters == chosen * one + dense
    assert before.macs - after.macs == chosen * one + dense
    assert after.parameters == sum(p.numel() for p in subject.model.parameters())


LATER = {
    "nothing": (None, None),
    "rtn": (Rtn(), PackedExpertLinear),
    "dynamic_int8": (DynamicInt8(), PackedExpertLinear),
    "magnitude": (MagnitudePruning(sparsity=0.8), SparseExpertLinear),
    "wanda": (Wanda(structure="n:m", indivisible="skip"), SparseExpertLinear),
    "sparsegpt": (Sparsegpt(sparsity=0.8, bits=4), PackedExpertLinear),
}


@pytest.mark.parametrize("later", LATER)
def test_factors_go_through_later_steps_and_an_artifact(later, tmp_path):
    subject, (step, kind) = subject_of("builtin gpt", depth=2), LATER[later]
    applied("moe", subject)
    Svd(rank=4).apply(subject, context(subject))
    macs = compute.count_macs(subject.model, {"input_ids": torch.arange(12)[None]})
    if step is not None:
        step.check(subject)
        step.apply(subject, context(subject))
    batch = subject.task.batch(torch.arange(4))
    with torch.no_grad():
        expected = logits_of(subject.model, batch)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        torch.testing.assert_close(logits_of(again, batch), expected, rtol=1e-3, atol=1e-4)
    factored = again.get_submodule(LAYER)
    assert isinstance(factored, LowRankExpertLinear)
    assert kind is None or {type(factored.up), type(factored.down)} & {kind}
    if later in ("nothing", "rtn"):
        assert compute.count_macs(again, {"input_ids": torch.arange(12)[None]}) == macs
    fresh = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(logits_of(fresh.model, batch), expected, rtol=1e-3, atol=1e-4)


def test_factored_experts_learn():
    subject = with_experts("moe")
    Svd(rank=RANK).apply(subject, context(subject))
    subject.model.train()(tokens()).square().mean().backward()
    layer = subject.model.get_submodule(LAYER)
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
