"""Layers with integer weights and integer inputs: the exact integer product, however it is computed."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.models.meta import assign_weights, empty_weights
from core.nn import activation_quant_linear
from core.nn.activation_quant_linear import ActivationQuantLinear
from core.nn.activation_quantizer import ActivationQuantizer
from core.nn.dynamic_int8_linear import has_onednn
from core.nn.sparse_integer_linear import SparseActivationQuantLinear, with_activations, without_zeros

SCALES = ("static", "per-tensor", "per-token")
FORMS = [*itertools.product([(8, 8), (4, 8), (6, 6), (4, 4), (2, 3)], SCALES, [True, False])]


def layer_of(linear, bits=8, activation_bits=8, scale="per-token", symmetric=True, weights="symmetric"):
    scheme = QuantizationScheme(bits, weights != "affine", 16 if weights == "groups" else None)
    packed = scheme.pack(linear, lambda fit, group: quantize_groups(linear.weight.float(), fit, group))
    quantizer = ActivationQuantizer(activation_bits, symmetric=symmetric, scale=scale)
    if scale == "static":
        quantizer.set_range(torch.tensor(-1.5), torch.tensor(2.5))
    return with_activations(packed, quantizer)


def oracle(layer, x):
    """Sums of int64 products of codes, group by group, times both scales, in float64."""
    grid = layer.activation.grid(x)
    codes = grid.quantize(x).long() - (0 if grid.zero_point is None else grid.zero_point.long())
    weights, scales, zero_points = layer.unpacked()
    size = layer.group_size or layer.in_features
    total = 0 if layer.bias is None else layer.bias.double()
    for group in range(layer.n_groups):
        own = slice(group * size, (group + 1) * size)
        offsets = zero_points[:, [min(group, zero_points.shape[1] - 1)]].long()
        product = codes[:, own] @ (weights[:, own].long() - offsets).t()
        total = total + product.double() * scales[:, group].double()[None] * grid.scale.double()
    return total


def close(found, expected):
    found, expected = found.detach(), expected.detach()
    return torch.allclose(found.double(), expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(("bits", "scale", "symmetric"), FORMS, ids=str)
def test_integer_arithmetic_equals_the_simulation_in_floats(bits, scale, symmetric):
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(48, 24), *bits, scale, symmetric)
    x = torch.randn(2, 7, 48)
    expected = oracle(layer, x.view(14, 48)).view(2, 7, 24)
    simulated = F.linear(layer.activation(x).double(), layer.weight().double(), layer.bias.double())
    assert close(simulated, expected)
    plain = layer(x)
    assert close(plain, expected)
    layer.prepare()
    assert (layer._kernel is not None) == has_onednn()
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weights", ["groups", "affine"])
def test_without_one_sum_of_codes_it_is_simulated_and_has_no_kernel(weights, symmetric):
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(40, 24), 4, 8, "per-token", symmetric, weights)
    x = torch.randn(5, 40)
    assert close(layer(x), oracle(layer, x))
    layer.prepare()
    assert layer._kernel is None
    assert layer.kernel(torch.device("cpu"), torch.float32) is None


def test_long_sums_are_exact_without_a_kernel(monkeypatch):
    monkeypatch.setattr(activation_quant_linear, "has_onednn", lambda: False)
    linear = nn.Linear(5000, 2, bias=False)
    linear.weight.data.fill_(1.0)
    linear.weight.data[1] = -1.0
    layer = layer_of(linear)
    layer.prepare()
    assert layer._kernel is None
    x = torch.ones(1, 5000)
    x[0, 1] = 1 / 127  # 4999 * 127 * 127 + 127 is beyond what float32 counts
    expected = (4999 + 1 / 127) * layer.weight()[:, 0].double()
    assert torch.allclose(layer(x).double()[0], expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(16,), (0, 16), (2, 0, 16), (2, 3, 16)])
def test_any_leading_axes_and_types(shape, dtype):
    layer = layer_of(nn.Linear(16, 8).to(dtype), scale="static", symmetric=False)
    layer.prepare()
    y = layer(torch.randn(shape, dtype=dtype))
    assert y.shape == (*shape[:-1], 8) and y.dtype == dtype


def test_it_reloads_equal_and_can_be_copied_and_cast():
    layer = layer_of(nn.Linear(16, 8), 4, 4, "static", False)
    with empty_weights():
        again = ActivationQuantLinear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    x = torch.randn(3, 16)
    assert torch.equal(again(x), layer(x))
    again.prepare()
    assert torch.equal(copy.deepcopy(again)(x), layer(x))
    scale = layer.activation.static_scale.clone()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.activation.static_scale, scale) and layer._kernel is None


def test_pruned_weights_are_stored_without_zeros_and_computed_with_the_same_codes():
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    linear.weight.data *= torch.rand(32, 64) > 0.8
    layer = layer_of(linear, scale="static")
    sparse = without_zeros(layer)
    assert isinstance(sparse, SparseActivationQuantLinear)
    x = torch.randn(3, 64)
    assert torch.equal(sparse(x), layer(x))
    sparse.prepare()
    assert torch.equal(sparse(x), layer(x))


def test_the_gradient_is_that_of_the_simulation():
    torch.manual_seed(0)
    layer = layer_of(nn.Linear(16, 8))
    x = torch.randn(3, 16, requires_grad=True)
    y = layer(x)
    assert torch.allclose(y, layer(x.detach()), atol=1e-5)
    y.sum().backward()
    assert torch.allclose(x.grad, layer.weight().sum(0).expand(3, -1), atol=1e-5)
