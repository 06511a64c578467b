"""Rounding to nearest on whole models."""

import pytest
import torch
from torch import nn

from core.errors import SpecError
from core.models.encoder import Encoder
from core.nn.precision import is_precise
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import PlaneTask, context, plane_subject


def encoder_subject(head_bias=True):
    blocks = {"dim": 16, "depth": 2, "heads": 2, "kv_heads": 2, "attention": "full", "attention_settings": {}}
    encoder = Encoder(
        vocab_size=11, length=8, pooling="mean", n_classes=3, ffn="mlp", ffn_dim=20, head_bias=head_bias, **blocks
    )
    encoder.initialize_(torch.Generator().manual_seed(0))
    return Subject({"main": encoder}, PlaneTask(), {"main": {}})


def quantized(subject, **settings):
    technique = Rtn(**settings)
    technique.check(subject)
    technique.apply(subject, context(subject))
    return {name: m for name, m in subject.model.named_modules() if isinstance(m, QuantLinear)}


def test_a_layer_by_hand():
    linear = nn.Linear(4, 2)
    linear.weight.data = torch.tensor([[7.5, -3.6, 0.5, 0.0], [-3.75, 1.75, 0.3, 0.1]])
    packed = Rtn(bits=4).quantize(linear)  # scales 1 and 0.5; 0.3 / 0.5 and 1.75 / 0.5 (half to even: 4)
    assert packed.scales.tolist() == [[1.0], [0.5]]
    assert packed.weight().tolist() == [[7.0, -4.0, 0.0, 0.0], [-4.0, 2.0, 0.5, 0.0]]
    assert torch.equal(packed.bias, linear.bias)


def test_block_linears_are_replaced_and_the_head_only_when_asked():
    subject = encoder_subject()
    found = quantized(subject)
    assert len(found) == 12
    assert type(subject.model.head) is nn.Linear
    assert len(quantized(encoder_subject(), include_head=True)) == 13


def test_skipped_layers_stay():
    assert len(quantized(encoder_subject(), skip=["blocks.0.*", "*.ffn.down"])) == 5


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_each_further_bit_halves_the_error(bits, granularity):
    linear = nn.Linear(48, 64)
    settings = {"granularity": granularity, "group_size": 16, "symmetric": False}

    def error(n_bits):
        packed = Rtn(bits=n_bits, **settings).quantize(linear)
        return (packed.weight() - linear.weight).square().mean().sqrt().item()

    step = (linear.weight.amax() - linear.weight.amin()).item() / (2**bits - 1)
    assert error(bits) == pytest.approx(step / 12**0.5, rel=0.25)


def test_groups_and_affine_levels_and_mse_each_lower_the_error():
    torch.manual_seed(0)
    linear = nn.Linear(256, 32)
    linear.weight.data = torch.randn(32, 256).exp()  # skewed, with outliers

    def error(**settings):
        return (Rtn(bits=4, **settings).quantize(linear).weight() - linear.weight).square().mean().item()

    plain = error()
    assert error(granularity="group", group_size=32) < plain
    assert error(symmetric=False) < plain
    assert error(observer="mse") < plain


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("observer", ["min-max", "percentile", "mse"])
def test_pruned_weights_stay_zero(symmetric, bits, observer):
    subject = plane_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[3] = False  # a row of nothing
    subject.constrain("up.weight", mask=mask)
    quantized(subject, bits=bits, symmetric=symmetric, observer=observer, granularity="group", group_size=8)
    assert (subject.model.up.weight()[~mask] == 0).all()
    assert subject.constraints == {}
    assert subject.model.up.count().nonzeros <= mask.sum()
    report = subject.details["layers"][0]
    assert report["sparsity"] >= 1 - mask.float().mean().item() - 1e-6


def test_the_report_tells_the_errors_of_each_layer():
    subject = plane_subject()
    before = subject.model.up.weight.detach().clone()
    quantized(subject, bits=3)
    error = subject.model.up.weight() - before
    (report,) = subject.details["layers"]
    assert report["name"] == "up"
    assert report["bits"] == 3
    assert report["mse"] == pytest.approx(error.square().mean().item())
    assert report["max_error"] == pytest.approx(error.abs().max().item())
    assert report["relative_error"] == pytest.approx((error.norm() / before.norm()).item(), rel=1e-4)


def test_scales_are_float16_unless_that_would_cost_precision():
    linear = nn.Linear(8, 4)
    assert Rtn().quantize(linear).scales.dtype == torch.float16
    linear.weight.data.mul_(1e-5)
    packed = Rtn().quantize(linear)
    assert packed.scales.dtype == torch.float32
    assert (packed.weight() - linear.weight).abs().max() <= 0.501 * packed.scales.max()
    linear.weight.data.mul_(1e12)
    assert Rtn(bits=2).quantize(linear).scales.dtype == torch.float32


def test_precision_of_scales():
    assert is_precise(torch.tensor([1e-4, 6e4]), torch.float16)
    assert not is_precise(torch.tensor([5e-5, 1.0]), torch.float16)
    assert not is_precise(torch.tensor([torch.inf]), torch.float16)


def test_a_short_last_group():
    linear = nn.Linear(20, 4)
    packed = Rtn(bits=8, granularity="group", group_size=8).quantize(linear)
    assert packed.scales.shape == (4, 3)
    assert torch.allclose(packed.weight(), linear.weight, atol=0.01)


def test_half_precision_models_stay_half():
    subject = plane_subject()
    subject.model.bfloat16()
    quantized(subject)
    assert subject.model.up.bias.dtype == torch.bfloat16
    assert subject.model(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_what_is_quantized_already_is_refused():
    subject = plane_subject()
    quantized(subject)
    with pytest.raises(SpecError) as raised:
        Rtn().check(subject)
    assert raised.value.problems[0].value == "up"
    assert "already a QuantLinear" in raised.value.problems[0].message


def test_a_model_without_linear_layers_is_refused():
    subject = Subject({"main": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())}, PlaneTask(), {"main": {}})
    with pytest.raises(SpecError, match="leaves no linear layer"):
        Rtn().check(subject)


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(SpecError, match="matches no module") as raised:
        Rtn(skip=["layers.*"]).check(encoder_subject())
    assert raised.value.problems[0].field == "skip"


def test_a_tied_head_is_never_quantized():
    subject = encoder_subject(head_bias=False)
    subject.model.head.weight = nn.Parameter(torch.randn(11, 16))
    subject.model.embedding.weight = subject.model.head.weight
    assert "head" not in quantized(subject)
    subject = encoder_subject(head_bias=False)
    subject.model.embedding.weight = subject.model.head.weight
    with pytest.raises(SpecError, match="include_head"):
        Rtn(include_head=True).check(subject)


def test_labels_tell_settings_apart():
    assert Rtn().label() == "8-bit per channel"
    settings = {"granularity": "group", "group_size": 32, "symmetric": False, "observer": "mse"}
    assert Rtn(bits=4, **settings).label() == "4-bit per group of 32 affine mse"
