"""LSQ: steps that are learned, and codes that are exactly those of the training."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.activation_quant_linear import ActivationQuantLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.lsq import Lsq
from core.techniques.quantization.rtn import Rtn
from core.techniques.quantization.trained_layers import ends_of
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import context, plane_subject, taken_up
from tests.core.techniques.quantization.qat import (
    FAMILIES,
    before_and_after_the_end,
    family_subject,
    float_layers,
    loss_of,
    trained_plane_subject,
)
from tests.core.training.test_loop import plan, same, weights


def packed(model: nn.Module) -> dict[str, QuantLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_the_packed_model_is_the_one_that_was_trained(family, granularity):
    subject = family_subject(family)
    before, after = before_and_after_the_end(subject, [Lsq(bits=3, granularity=granularity)])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    layers = packed(subject.model)
    assert layers and {layer.bits for layer in layers.values()} == {3}
    assert not any(parametrize.is_parametrized(module) for module in subject.model.modules())
    if granularity == "tensor":
        assert all(len(layer.scales.unique()) == 1 for layer in layers.values())
    if family == "mixtral":
        assert sum(isinstance(module, PackedExpertLinear) for module in subject.model.modules()) == 6


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_so_it_is_with_activations(family):
    subject = family_subject(family)
    before, after = before_and_after_the_end(subject, [Lsq(bits=4, activation_bits=4)])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    layers = packed(subject.model)
    assert layers and all(isinstance(layer, ActivationQuantLinear) for layer in layers.values())


def test_activations_that_are_never_negative_have_no_sign():
    subject = float_layers()  # the second reads what a ReLU gives
    method = Lsq(bits=4, activation_bits=3, eight_bit_ends=False)
    training = Training(subject, context(subject), plan(steps=3), [method])
    grids = [subject.model.get_submodule(name).input_quantizer for name in ("up", "middle")]
    assert [(grid.low, grid.high) for grid in grids] == [(-4, 3), (0, 7)]
    with torch.no_grad():
        x = subject.task.points
        hidden = subject.model.up(x).relu()
    assert grids[0].step.item() == pytest.approx(2 * float(x.abs().mean()) / 3**0.5, rel=1e-5)
    assert grids[1].step.item() == pytest.approx(2 * float(hidden.mean()) / 7**0.5, rel=0.2)  # of weights unrounded
    assert grids[1].gradient_scale == pytest.approx((16 * 7) ** -0.5)  # features, not the batch
    training.run()
    layers = packed(subject.model)
    assert [int(layer.activation.static_zero_point) for layer in layers.values()] == [0, -4]
    assert float(layers["middle"].activation(torch.tensor([-1.0]))) == 0


def test_steps_begin_as_the_paper_says_and_move():
    subject = plane_subject()
    method = Lsq(bits=4, eight_bit_ends=False, include_head=True)
    weight = subject.model.up.weight.detach().clone()
    training = Training(subject, context(subject), plan(steps=10), [method])
    step = subject.model.up.parametrizations.weight[0].step
    first = 2 * weight.abs().mean(1) / 7**0.5
    torch.testing.assert_close(step.detach(), first)
    assert subject.model.up.parametrizations.weight[0].gradient_scale == pytest.approx((8 * 7) ** -0.5)
    training._make_updates()
    assert (step > 0).all() and not torch.equal(step.detach(), first)


def test_under_adamw_the_rate_of_a_step_is_relative_to_it():
    subject, method = plane_subject(), Lsq(bits=4)
    training = Training(subject, context(subject), plan(steps=1, warmup=0, learning_rate=0.01), [method])
    step = subject.model.up.parametrizations.weight[0].step
    first = step.detach().clone()
    training._make_updates()
    moved = (step.detach() - first).abs().max()  # Adam's first update moves by the rate
    assert moved == pytest.approx(0.01 * float(first.mean()), rel=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_stay_above_zero(optimizer):
    subject, method = plane_subject(), Lsq(bits=2)
    settings = {"optimizer": optimizer, "learning_rate": 5.0, "clip_norm": 0, "warmup": 0}
    training = Training(subject, context(subject), plan(steps=20, **settings), [method])
    first = subject.model.up.parametrizations.weight[0].step.detach().clone()
    for _ in range(20):
        training._update()
        training.index += 1
        assert (subject.model.up.parametrizations.weight[0].step >= first / 64).all()


def test_the_ends_of_a_model_have_8_bits():
    subject = plane_subject()
    Train(steps=2, methods=[{"lsq": {"bits": 2}}]).apply(subject, context(subject))
    assert {name: layer.bits for name, layer in packed(subject.model).items()} == {"up": 8}
    gpt = family_subject("llama")
    assert ends_of(gpt.model) == {"model.embed_tokens", "lm_head"}
    Train(steps=2, batch_size=4, evaluations=0, methods=[{"lsq": {"bits": 2, "include_head": True}}]).apply(
        gpt, context(gpt)
    )
    assert {name for name, layer in packed(gpt.model).items() if layer.bits == 8} == {"lm_head"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_model_has_float32_masters_and_steps_in_its_own_dtype(dtype):
    subject = family_subject("llama", dtype)
    method = Lsq(bits=4)
    training = Training(subject, context(subject), plan(steps=2, batch_size=4), [method])
    grid = subject.model.get_submodule("model.layers.0.mlp.up_proj.parametrizations.weight.0")
    assert grid.step.dtype == torch.float32 and grid.dtype == dtype
    training.run()
    layer = packed(subject.model)["model.layers.0.mlp.up_proj"]
    assert layer.scales.dtype == dtype and layer.dtype == dtype
    assert {p.dtype for p in subject.model.parameters()} == {dtype}


def test_pruned_weights_stay_zero():
    subject = family_subject("llama")
    MagnitudePruning(sparsity=0.7).apply(subject, context(subject))
    masks = {name.removeprefix("main."): constraint.tensor for name, constraint in subject.constraints.items()}
    before_and_after_the_end(subject, [Lsq(bits=4)])
    for name, mask in masks.items():
        layer = subject.model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, SparseQuantLinear)
        assert not layer.weight()[~mask].any()


def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path):
    method = {"lsq": {"bits": 2, "activation_bits": 3, "eight_bit_ends": False}}
    train = Train(steps=20, learning_rate=0.05, evaluations=0, methods=[method])
    (whole, record), (resumed, again) = taken_up(train, float_layers, tmp_path, at=10)
    assert same(weights(whole), weights(resumed))
    for kind in ("weight", "activation"):
        name = f"0/{kind} steps, relative to the first"
        assert again.curves[name] == record.curves[name][10:]


def test_training_at_2_bits_is_better_than_rounding_to_2_bits():
    method = {"lsq": {"bits": 2, "eight_bit_ends": False}}
    for seed in range(3):
        rounded, trained = trained_plane_subject(seed), trained_plane_subject(seed)
        Rtn(bits=2).apply(rounded, context(rounded))
        Train(steps=100, learning_rate=0.01, evaluations=0, methods=[method]).apply(trained, context(trained))
        assert packed(trained.model).keys() == packed(rounded.model).keys() == {"up"}
        assert loss_of(trained) < 0.5 * loss_of(rounded)


def test_layers_are_reported():
    subject, record = plane_subject(), MemoryRecord()
    method = {"lsq": {"bits": 3, "eight_bit_ends": False}}
    Train(steps=2, methods=[method]).apply(subject, context(subject, record))
    (row, *_) = subject.details["layers"]
    assert row["name"] == "up" and row["bits"] == 3 and 0 < row["relative_error"] < 1


def test_it_is_refused_twice_and_with_what_decides_the_same():
    subject = plane_subject()
    Train(steps=1, methods=["lsq"]).apply(subject, context(subject))
    with pytest.raises(SpecError, match="is already a QuantLinear"):
        Lsq().check(subject)
    with pytest.raises(SpecError, match="decides which weights are kept"):
        Train(methods=["lsq", "movement_pruning"]).check(plane_subject())


def test_label():
    labels = [Lsq().label(), Lsq(bits=2, granularity="tensor").label(), Lsq(activation_bits=8).label()]
    assert labels == ["W4", "W2 per tensor", "W4A8"]
