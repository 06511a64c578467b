"""Half-quadratic quantization on whole models."""

import pytest
import torch
from torch import nn

from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.hqq import Hqq
from core.techniques.quantization.rtn import Rtn
from tests.core.calibration.models import subject_of
from tests.core.fakes import context
from tests.core.techniques.quantization.test_gptq import apply, logits


@pytest.mark.parametrize("settings", [{}, {"granularity": "channel"}, {"fit_scale": True}], ids=str)
@pytest.mark.parametrize("bits", [2, 4])
def test_no_layer_has_a_larger_error_than_rounded_to_nearest(bits, settings):
    torch.manual_seed(0)
    linear = nn.Linear(200, 32)
    packed = Hqq(bits=bits, **settings).quantize(linear)
    grouped = {"granularity": "group", "group_size": 64} | {k: v for k, v in settings.items() if k == "granularity"}
    nearest = Rtn(bits=bits, symmetric=False, **grouped).quantize(linear)

    def error(layer: QuantLinear) -> float:
        return float((layer.weight() - linear.weight).detach().abs().pow(0.7).sum())

    assert error(packed) < 0.98 * error(nearest)
    assert packed.zero_points.dtype == torch.float16
    assert packed.zero_points.nbytes == 2 * packed.scales.numel()
    codes, scales, zero_points = packed.unpacked()
    size = packed.group_size or 200
    wide = [t.float().repeat_interleave(size, dim=1)[:, :200] for t in (scales, zero_points)]
    assert torch.equal(packed.weight(), wide[0] * (codes.float() - wide[1]))
    index = torch.tensor([5, 0, 31])
    assert torch.equal(packed.rows(index), packed.weight()[index])


@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "opt", "gpt2", "bert", "vit"])
def test_every_family_is_quantized_and_loses_no_more_than_by_rounding_to_nearest(name):
    dense = logits(subject_of(name))
    grid = {"bits": 3, "granularity": "group", "group_size": 8}
    found, nearest = (
        float((logits(apply(technique, subject_of(name))) - dense).square().mean())
        for technique in (Hqq(**grid), Rtn(**grid, symmetric=False))
    )
    assert found < 1.0 * nearest


@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_pruned_weights_stay_zero_and_are_not_stored(granularity):
    subject = subject_of("llama")
    MagnitudePruning(sparsity=0.8).apply(subject, context(subject))
    masks = {name: c.tensor.clone() for name, c in subject.constraints.items()}
    apply(Hqq(granularity=granularity, group_size=8), subject)
    assert masks
    for name, mask in masks.items():
        packed = subject.model.get_submodule(name.removeprefix("main.").removesuffix(".weight"))
        assert not packed.weight()[~mask].any()
        if granularity == "channel":
            assert isinstance(packed, SparseQuantLinear)


def test_codes_without_those_of_zero_are_the_same_codes():
    torch.manual_seed(0)
    linear = nn.Linear(64, 8)
    linear.weight.data[:, :48] *= torch.rand(8, 48) > 0.9
    packed = Hqq(group_size=16).quantize(linear)
    sparse = SparseQuantLinear.pack(packed)
    assert torch.equal(sparse.weight(), packed.weight())
    assert sparse.codes.numel() < packed.codes.numel()
    assert sparse.count().nonzeros == packed.count().nonzeros == torch.count_nonzero(packed.weight())


def test_a_cast_leaves_scales_and_zero_points_as_they_are():
    subject = apply(Hqq(), subject_of("llama"))
    name, layer = next((n, m) for n, m in subject.model.named_modules() if isinstance(m, QuantLinear))
    scales, zero_points = layer.scales.clone(), layer.zero_points.clone()
    apply(Cast(), subject)  # to bfloat16
    layer = subject.model.get_submodule(name)
    assert torch.equal(layer.scales, scales)
    assert layer.zero_points.dtype == torch.float16
    assert torch.equal(layer.zero_points, zero_points)


def test_labels_tell_settings_apart():
    assert Hqq().label() == "4-bit per group of 64"
    assert Hqq(bits=2, granularity="channel", fit_scale=True).label() == "2-bit per channel fitted scales"
