"""Rotation: every part leaves the function as it is, and what follows it rounds rotated weights and activations."""

import pytest
import torch
from torch import nn

from core.artifacts import artifact
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.low_rank_linear import LowRankLinear
from core.nn.quant_linear import QuantLinear
from core.nn.rotated_input import RotatedInput
from core.nn.sliced import SlicedNorm
from core.techniques.pruning.channel_permutation import ChannelPermutation
from core.techniques.pruning.slicegpt import Slicegpt
from core.techniques.quantization.rotation import Rotation
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.pruning.test_slicegpt import FAMILIES, _precise_norms, answers

ROTATIONS = ("residual_stream", "values", "ffn")
PRECISE = pytest.fixture(autouse=True)(_precise_norms.__wrapped__)


def only(part: str) -> Rotation:
    return Rotation(**{name: name == part for name in ROTATIONS})


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of the parameters whose values differ."""
    known = dict(before.named_parameters(remove_duplicate=False))
    return {n for n, p in after.named_parameters() if n in known and not torch.equal(known[n], p)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_rotated_model_computes_the_same(family, dtype, limit):
    subject = subject_of(family, depth=2, dtype=dtype)
    before = answers(subject)
    Rotation().apply(subject, context(subject))
    assert (answers(subject) - before).abs().max() < limit * before.abs().max()
    assert len([m for m in subject.model.modules() if isinstance(m, SlicedNorm)]) == 5
    assert len([m for m in subject.model.modules() if isinstance(m, RotatedInput)]) == 2
    assert len(subject.details["layers"]) == 5
    assert not anatomy(subject.model).tied


@pytest.mark.parametrize("part", ROTATIONS)
@pytest.mark.parametrize("family", ["builtin gpt", "llama", "gpt2"])
def test_each_rotation_alone_changes_its_weights_and_nothing_else(family, part):
    subject, original = subject_of(family, depth=1, dtype=torch.float64), subject_of(family, 1, torch.float64)
    before = answers(subject)
    only(part).apply(subject, context(subject))
    assert (answers(subject) - before).abs().max() < 1e-10 * before.abs().max()
    block = anatomy(original.model).blocks[0]
    names = changed(original.model, subject.model)
    owners = {name.rpartition(".")[0] for name in names}
    expected = {"values": {block.v, block.o}, "ffn": set()}  # the last layer is found by another name
    if part in expected:
        assert owners == expected[part]
    else:
        assert {*block.linears, anatomy(original.model).embeddings[0]} <= owners


def test_layers_that_rotate_their_inputs_hold_the_rotated_weight():
    subject, original = subject_of("llama", depth=1, dtype=torch.float64), subject_of("llama", 1, torch.float64)
    only("ffn").apply(subject, context(subject))
    name = anatomy(original.model).blocks[0].down
    rotated = subject.model.get_submodule(name)
    expected = rotated.rotation(original.model.get_parameter(f"{name}.weight"))
    torch.testing.assert_close(rotated.linear.weight, expected, atol=1e-12, rtol=0)


def test_blocks_with_norms_after_their_parts_rotate_within_these_only():
    subject = subject_of("bert", depth=2, dtype=torch.float64)
    before = answers(subject)
    with pytest.raises(SpecError, match=r"residual_stream = True: this model has blocks.* Set residual_stream: false"):
        Rotation().check(subject)
    Rotation(residual_stream=False).apply(subject, context(subject))
    assert [row["rotation"] for row in subject.details["layers"]] == ["R2", "R4"] * 2
    assert (answers(subject) - before).abs().max() < 1e-10 * before.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_artifact_of_a_rotated_and_rounded_model_reloads_to_the_same(family, tmp_path):
    subject = subject_of(family, depth=2)
    Rotation().apply(subject, context(subject))
    Rtn(bits=8).apply(subject, context(subject))
    block = anatomy(subject.model).blocks[0]
    assert isinstance(subject.model.get_submodule(f"{block.down}.linear"), QuantLinear)
    after = answers(subject)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert torch.equal(answers(subject, again.model), after)


@torch.no_grad()
def plant_outliers(model: nn.Module) -> None:
    """Two channels of the stream, and two of every feed-forward network's units, far larger than the others."""
    for block in anatomy(model).blocks:
        for name in (block.norm1, block.norm2):
            model.get_parameter(f"{name}.weight")[[3, 17]] *= 20
        model.get_parameter(f"{block.up}.weight")[[2, 29]] *= 20


def test_rounding_costs_less_after_rotation():
    errors = []
    for steps in ([], [Rotation()]):
        subject = subject_of("llama", depth=2)
        plant_outliers(subject.model)
        before = answers(subject)
        for step in [*steps, Rtn(bits=4)]:
            step.apply(subject, context(subject))
        errors.append(float((answers(subject) - before).norm() / before.norm()))
    assert errors[1] < 0.8 * errors[0]


def test_the_signs_are_those_of_the_run():
    first, again, other = (subject_of("llama", depth=1) for _ in range(3))
    for subject, material in ((first, "test"), (again, "test"), (other, "other")):
        made = context(subject)
        made.seed_material = material
        Rotation().apply(subject, made)
    head = "lm_head.weight"
    assert torch.equal(first.model.get_parameter(head), again.model.get_parameter(head))
    assert not torch.equal(first.model.get_parameter(head), other.model.get_parameter(head))


def test_channels_of_a_rotated_model_are_permuted_without_changing_it():
    subject = subject_of("llama", depth=2, dtype=torch.float64)
    Rotation().apply(subject, context(subject))
    before = answers(subject)
    ChannelPermutation(strategy="greedy_swap", escapes=0).apply(subject, context(subject))
    assert (answers(subject) - before).abs().max() < 1e-10 * before.abs().max()


def test_what_cannot_be_rotated_is_refused_with_the_reason():
    with pytest.raises(SpecError, match="leaves nothing to rotate"):
        Rotation(residual_stream=False, values=False, ffn=False).check(subject_of("llama", depth=1))
    with pytest.raises(SpecError, match="whose blocks' parts are not known"):
        Rotation().check(plane_subject())
    factored = subject_of("builtin vit", depth=1)
    factored.replace("blocks.0.ffn.down", LowRankLinear.from_linear(factored.model.blocks[0].ffn.down, 4))
    with pytest.raises(SpecError, match="LowRankLinear, which cannot be rotated"):
        Rotation(residual_stream=False).check(factored)
    masked = subject_of("builtin vit", depth=1)
    masked.constrain("blocks.0.ffn.up.weight", mask=torch.rand(48, 32) > 0.5)
    with pytest.raises(SpecError, match=r"rotation = 'blocks.0.ffn.up.weight': is pruned"):
        Rotation().check(masked)
    rotated = subject_of("builtin vit", depth=1)
    Rotation().apply(rotated, context(rotated))
    for step in (Rotation(), Rotation(residual_stream=False), Slicegpt()):
        with pytest.raises(SpecError):
            step.check(rotated)
