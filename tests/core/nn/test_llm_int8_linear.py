"""LLM.int8's decomposition: its two parts, its limits, and the exact integer product."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.models.meta import assign_weights, empty_weights
from core.nn.llm_int8_linear import LlmInt8Linear
from core.nn.sparse_integer_linear import SparseLlmInt8Linear, without_zeros
from core.techniques.quantization.dynamic_int8 import quantize


def layer_of(threshold, in_features=32):
    torch.manual_seed(0)
    return LlmInt8Linear.around(quantize(nn.Linear(in_features, 24)), threshold)


def inputs_with_outliers():
    x = torch.randn(10, 32, generator=torch.Generator().manual_seed(1)).clamp(-5, 5)
    x[3, 7], x[8, 20] = 60.0, -6.0
    return x


def oracle(layer, x):
    """The paper's formula, section 3.2, on the flattened matrix: int64 products and float64 outlier columns."""
    rows = x.reshape(-1, x.shape[-1]).double()
    outliers = (rows.abs() >= layer.threshold).any(0)
    rest = rows * ~outliers
    scales = (rest.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
    product = torch.round(rest / scales).long() @ layer.codes.long().t()
    exact = rows[:, outliers] @ layer.weight().double()[:, outliers].t()
    total = product.double() * scales * layer.scales.double() + exact + layer.bias.double()
    return total.view(*x.shape[:-1], -1).detach()


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 3.0, 6.0, 1e9])
def test_every_way_equals_the_formula(threshold, prepared):
    layer, x = layer_of(threshold), inputs_with_outliers().view(2, 5, 32)
    if prepared:
        layer.prepare()
    assert torch.allclose(layer(x).double(), oracle(layer, x), rtol=1e-5, atol=1e-5)


def test_without_outliers_it_is_the_vector_wise_product_and_with_all_of_them_nothing_is_rounded():
    x = inputs_with_outliers()
    plain, exact = layer_of(math.inf), layer_of(0.0)
    assert torch.equal(plain(x), quantize(linear_again())(x))
    assert torch.allclose(exact(x), F.linear(x, exact.weight(), exact.bias), rtol=1e-5, atol=1e-5)


def linear_again():
    torch.manual_seed(0)
    return nn.Linear(32, 24)


def test_an_outlier_in_one_row_keeps_its_whole_column_apart():
    layer, x = layer_of(6.0), inputs_with_outliers()
    exact = F.linear(x.double(), layer.weight().double(), layer.bias.double())

    def error(made):
        return (made(x).double() - exact).norm().item()

    assert error(layer) < 0.4 * error(layer_of(1e9))
    moved = x.clone()
    moved[5, 7] += 1e-4  # not an outlier itself, and far below a step: felt only because its column is not rounded
    change = layer(moved)[5] - layer(x)[5]
    assert torch.allclose(change, 1e-4 * layer.weight()[:, 7], rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(32,), (0, 32), (2, 3, 32)])
def test_any_leading_axes_and_types(shape, dtype):
    layer = LlmInt8Linear.around(quantize(nn.Linear(32, 8).to(dtype)), 1.0)
    y = layer(torch.randn(shape, dtype=dtype))
    assert y.shape == (*shape[:-1], 8) and y.dtype == dtype


def test_it_reloads_equal_and_without_its_zeros():
    linear = linear_again()
    linear.weight.data *= torch.rand(24, 32) > 0.8
    layer, x = LlmInt8Linear.around(quantize(linear), 6.0), inputs_with_outliers()
    with empty_weights():
        again = LlmInt8Linear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    sparse = without_zeros(layer)
    assert isinstance(sparse, SparseLlmInt8Linear)
    assert torch.equal(again(x), layer(x))
    assert torch.equal(sparse(x), layer(x))


def test_the_gradient_passes_the_rounding_straight_through():
    layer = layer_of(6.0)
    x = inputs_with_outliers().requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight().sum(0).expand(10, -1), atol=1e-5)
