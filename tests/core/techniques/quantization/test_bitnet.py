"""BitNet b1.58: three values a matrix, an exact integer product, and the schedule of two stages."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.algorithms.fake_quantization import ternary
from core.nn.bit_linear import BitInput, BitLinear, rms_normalized
from core.nn.experts.packed import PackedExpertLinear
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.bitnet import Bitnet
from core.techniques.quantization.number_format import NumberFormats
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


def bit_layers(model: nn.Module) -> dict[str, BitLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}


def packed_layer(n_in: int = 37, n_out: int = 9) -> tuple[nn.Linear, BitLinear]:
    torch.manual_seed(0)
    linear = nn.Linear(n_in, n_out)
    scale = linear.weight.detach().abs().mean().view(1)
    codes = (linear.weight.detach() / scale).round().clamp(-1, 1)
    return linear, BitLinear.of_codes(linear, codes, scale, torch.rand(n_in) + 0.5)


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_the_packed_model_is_the_one_that_was_trained(family):
    subject = family_subject(family)
    before, after = before_and_after_the_end(subject, [Bitnet()])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    layers = bit_layers(subject.model)
    assert layers
    for layer in layers.values():
        assert len(layer.weight().unique()) <= 3 and layer.scales.numel() == 1
        assert layer.codes.shape[1] == -(-layer.in_features // 5)  # five weights a byte
    if family == "mixtral":
        experts = [m for m in subject.model.modules() if isinstance(m, PackedExpertLinear)]
        assert len({float(e.scales) for e in experts[0].layers}) == len(experts[0].layers)


def test_the_integer_product_is_the_rounded_one():
    linear, layer = packed_layer()
    x = torch.randn(5, 3, 37)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.gain.detach()
    scale = 127 / normed.abs().amax(-1, keepdim=True)
    expected = F.linear((normed * scale).round() / scale, ternary(linear.weight[None], torch.float32)[0], linear.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
        layer.prepare()
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    with_gradient = layer(x.requires_grad_())
    torch.testing.assert_close(with_gradient, expected, atol=1e-5, rtol=1e-5)
    with_gradient.sum().backward()
    assert x.grad.abs().sum() > 0


def test_codes_survive_packing():
    linear, layer = packed_layer()
    codes = layer.signed().float()
    torch.testing.assert_close(codes * layer.scales, ternary(linear.weight.detach()[None], torch.float32)[0])
    again = BitLinear(**layer.arguments())
    again.load_state_dict(layer.state_dict())
    x = torch.randn(4, 37)
    assert torch.equal(again(x), layer(x))


def test_inputs_are_normalized_then_rounded_token_by_token():
    layer = BitInput(8)
    x = torch.randn(3, 8) * torch.tensor([[1.0], [100.0], [0.01]])
    torch.testing.assert_close(rms_normalized(x, layer.gain).square().mean(-1), torch.ones(3), atol=2e-2, rtol=0)
    rounded = layer(x).detach()
    codes = rounded / rounded.abs().amax(-1, keepdim=True) * 127
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_the_second_stage_has_two_thirds_of_the_rate_and_no_decay():
    subject = plane_subject()
    course = {"steps": 10, "warmup": 0, "schedule": "linear", "learning_rate": 0.1, "weight_decay": 0.1}
    training = Training(subject, context(subject), plan(**course), [Bitnet()])
    rates, decays = [], []
    for _ in range(10):
        training._update()
        training.index += 1
        rates.append(training.optimizer.param_groups[0]["lr"])
        decays.append(training.optimizer.param_groups[0]["weight_decay"])
    expected = [0.1 * (1 - i / 10) * (1 if i < 5 else 2 / 3) for i in range(10)]
    assert rates == pytest.approx(expected)
    assert decays == [0.1] * 5 + [0.0] * 5


def test_gains_of_a_trained_model_begin_at_the_size_of_the_inputs():
    subject = float_layers()
    subject.trained = True
    with torch.no_grad():
        hidden = subject.model.up(subject.task.points).relu()
    method = Bitnet(calibration_examples=64)
    method.begin(subject, context(subject))
    gain = subject.model.middle.input_quantizer.gain.detach()
    torch.testing.assert_close(gain, hidden.square().mean().sqrt().expand(16), rtol=1e-5, atol=1e-6)
    fresh = float_layers()
    Bitnet().begin(fresh, context(fresh))
    assert (fresh.model.middle.input_quantizer.gain == 1).all()


def test_pruned_weights_stay_zero():
    subject = family_subject("llama")
    MagnitudePruning(sparsity=0.7).apply(subject, context(subject))
    masks = {name.removeprefix("main."): constraint.tensor for name, constraint in subject.constraints.items()}
    before_and_after_the_end(subject, [Bitnet()])
    for name, mask in masks.items():
        assert not subject.model.get_submodule(name.removesuffix(".weight")).weight()[~mask].any()


def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path):
    train = Train(steps=20, learning_rate=0.05, evaluations=0, methods=["bitnet"])
    (whole, _), (resumed, _) = taken_up(train, float_layers, tmp_path, at=13)
    assert same(weights(whole), weights(resumed))


def test_training_is_better_than_rounding_to_ternary_weights():
    for seed in range(3):
        rounded, trained = trained_plane_subject(seed), trained_plane_subject(seed)
        NumberFormats(format="ternary").apply(rounded, context(rounded))
        Train(steps=100, learning_rate=0.01, evaluations=0, methods=["bitnet"]).apply(trained, context(trained))
        assert loss_of(trained) < 0.5 * loss_of(rounded)
