"""Integer products against an oracle that multiplies codes in int64."""

import copy

import pytest
import torch
from torch import nn

from core.models.meta import assign_weights, empty_weights
from core.nn import dynamic_int8_linear
from core.nn.attention.full import FullAttention
from core.nn.dynamic_int8_linear import (
    DynamicInt8Linear,
    has_onednn,
    onednn_multiply,
    quantize_rows,
    shared_input,
)
from core.techniques.quantization.dynamic_int8 import quantize as quantize_int8


def oracle(layer, x):
    """Codes multiplied and summed as int64, then the two scales and the bias in float64."""
    largest = x.double().abs().amax(1, keepdim=True)
    codes = torch.round(x.double() * 127 / largest).long()
    product = codes @ layer.codes.long().t()
    bias = layer.bias.double() if layer.bias is not None else 0
    return product.double() * (largest / 127) * layer.scales.double() + bias


def test_rows_by_hand():
    codes, scales = quantize_rows(
        torch.tensor([[1.27, -0.635, 0.0, 0.014], [0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.5, 0.0]])
    )
    assert codes.tolist() == [[127, -64, 0, 1], [0, 0, 0, 0], [-127, 64, 32, 0]]  # -63.5 and 63.5 go to the even ones
    assert torch.allclose(scales[[0, 2], 0], torch.tensor([0.01, 2 / 127]))


def test_a_product_by_hand():
    linear = nn.Linear(2, 1)
    linear.weight.data, linear.bias.data = torch.tensor([[127.5, -20.4]]), torch.tensor([0.5])
    layer = quantize_int8(linear)
    assert layer.codes.tolist() == [[127, -20]]
    assert layer(torch.tensor([[1.27, 0.33]])).item() == pytest.approx(0.01 * (127 * 127 - 20 * 33) + 0.5)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "in_features", "out_features"), [(1, 64, 32), (17, 100, 33), (3, 1, 1), (40, 3072, 16)]
)
def test_every_way_equals_the_oracle(prepared, bias, rows, in_features, out_features):
    torch.manual_seed(rows)
    layer = quantize_int8(nn.Linear(in_features, out_features, bias=bias))
    if prepared:
        layer.prepare()
    x = torch.randn(rows, in_features) * torch.logspace(-3, 3, rows)[:, None]
    expected = oracle(layer, x)
    assert torch.allclose(layer(x).double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_weights_use_all_levels_and_activations_one_less():
    linear = nn.Linear(2, 1)
    linear.weight.data = torch.tensor([[-127.5, 127.5]])
    assert quantize_int8(linear).codes.tolist() == [[-128, 127]]
    assert quantize_rows(torch.tensor([[-127.5, 127.5]])).codes.tolist() == [[-127, 127]]


@pytest.mark.parametrize("code", [127, -128])
def test_largest_codes_do_not_saturate(code):
    layer = DynamicInt8Linear(4096, 8, bias=False)
    layer.codes.fill_(code)
    layer.prepare()
    x = torch.full((2, 4096), 5.0)
    assert torch.allclose(layer(x), torch.full((2, 8), 4096 * code * 5.0))
    assert torch.allclose(layer(-x), torch.full((2, 8), -4096 * code * 5.0))


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = quantize_int8(nn.Linear(32, 8))
    layer.prepare()
    x = torch.randn(5, 32)
    louder = x.clone()
    louder[1:] *= 1000  # one scale for the tensor would drown row 0
    assert torch.allclose(layer(louder)[0], layer(x)[0])


@pytest.mark.skipif(not has_onednn(), reason="this processor has no exact integer kernel")
def test_kernel_equals_the_unprepared_product():
    torch.manual_seed(0)
    layer = quantize_int8(nn.Linear(96, 48))
    layer.codes[0] = -128
    x = torch.randn(2, 7, 96)
    plain = layer(x)
    layer.prepare()
    assert layer._kernel is not None
    assert layer.kernel(torch.device("cpu"), torch.float32)
    assert torch.allclose(layer(x), plain, rtol=1e-6, atol=1e-6)
    codes = torch.randint(-127, 128, (9, 96), dtype=torch.int8)
    product = onednn_multiply(layer.codes, torch.ones(48))(codes)
    assert torch.equal(product.long(), codes.long() @ layer.codes.long().t())


def test_without_an_engine_no_kernel_is_claimed(monkeypatch):
    monkeypatch.setattr("core.nn.dynamic_int8_linear.has_onednn", lambda: False)
    layer = quantize_int8(nn.Linear(16, 8))
    layer.prepare()
    assert layer._kernel is None
    assert layer.kernel(torch.device("cpu"), torch.float32) is None
    x = torch.randn(3, 16)
    assert torch.allclose(layer(x).double(), oracle(layer, x), atol=1e-5)


@pytest.mark.parametrize("shape", [(16,), (0, 16), (2, 0, 16), (2, 3, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_leading_axes_and_types(shape, dtype):
    layer = quantize_int8(nn.Linear(16, 8).to(dtype))
    layer.prepare()
    y = layer(torch.randn(shape, dtype=dtype))
    assert y.shape == (*shape[:-1], 8)
    assert y.dtype == dtype
    assert layer.bias.dtype == dtype


def test_nan_is_not_hidden():
    layer = quantize_int8(nn.Linear(16, 8))
    layer.prepare()
    x = torch.zeros(2, 16)
    x[0, 3] = torch.nan
    y = layer(x)
    assert y[0].isnan().all()
    assert torch.equal(y[1], layer.bias)


def test_state_is_int8_weights_float32_scales_and_the_bias():
    layer = quantize_int8(nn.Linear(16, 8))
    layer.prepare()
    layer(torch.randn(1, 16))
    state = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in layer.state_dict().items()}
    assert state == {
        "codes": (torch.int8, (8, 16)),
        "scales": (torch.float32, (8,)),
        "bias": (torch.float32, (8,)),
    }
    with empty_weights():
        again = DynamicInt8Linear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    again.prepare()
    x = torch.randn(3, 16)
    assert torch.equal(again(x), layer(x))


def test_a_prepared_layer_can_be_copied_and_moved():
    layer = quantize_int8(nn.Linear(16, 8))
    layer.prepare()
    x = torch.randn(3, 16)
    assert torch.allclose(copy.deepcopy(layer)(x), layer(x), atol=1e-6)
    layer.to(torch.bfloat16)
    assert layer._kernel is None
    assert layer.scales.dtype == torch.float32


def test_gradient_passes_the_rounding_straight_through():
    layer = quantize_int8(nn.Linear(16, 8))
    x = torch.randn(3, 16, requires_grad=True)
    y = layer(x)
    assert torch.allclose(y, layer(x.detach()), atol=1e-5)
    y.sum().backward()
    assert torch.allclose(x.grad, layer.weight().sum(0).expand(3, -1), atol=1e-5)


def test_dense_and_count():
    linear = nn.Linear(16, 8)
    linear.weight.data[:, ::2] = 0
    layer = quantize_int8(linear)
    assert (layer.dense().weight[:, ::2] == 0).all()
    assert torch.allclose(layer.dense().weight, linear.weight, atol=0.01)
    assert layer.count().nonzeros <= 64
    assert layer.count().bits == 8


@pytest.fixture
def roundings(monkeypatch):
    calls = []

    def counted(x):
        calls.append(tuple(x.shape))
        return quantize_rows(x)

    monkeypatch.setattr(dynamic_int8_linear, "quantize_rows", counted)
    return calls


def test_attention_rounds_the_input_of_q_k_and_v_once(roundings):
    torch.manual_seed(0)
    attention = FullAttention(16, 2)
    for name in ("q", "k", "v", "o"):
        attention.set_submodule(name, quantize_int8(attention.get_submodule(name)))
    roundings.clear()
    x = torch.randn(2, 3, 16)
    with torch.inference_mode():
        q, k, v = attention.project(x)
        assert roundings == [(6, 16)]
        assert torch.equal(q, attention._split(attention.q(x)))
        assert torch.equal(k, attention._split(attention.k(x)))
        assert torch.equal(v, attention._split(attention.v(x)))
    assert len(roundings) == 4


def test_only_the_shared_input_is_shared(roundings):
    layer = quantize_int8(nn.Linear(16, 8, bias=False))
    roundings.clear()
    x, other = torch.randn(16, 16), torch.randn(16, 16)
    with shared_input(x):
        first = layer(x)
        assert not torch.equal(layer(other), first)
        assert torch.equal(layer(x), first)
        assert torch.allclose(layer(x[1:]), first[1:], atol=1e-5)
        assert len(roundings) == 3
        turned = layer(x.t())  # the same memory, read otherwise
    assert torch.equal(layer(x.t()), turned)
    x.mul_(2)
    assert torch.allclose(layer(x), 2 * first, atol=1e-4)
