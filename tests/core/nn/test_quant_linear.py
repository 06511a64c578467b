"""Packed weights mean what they should, whichever way they are multiplied."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.models.meta import assign_weights, empty_weights
from core.nn.quant_linear import QuantLinear

CPU = torch.device("cpu")


def make(
    bits=4, in_features=64, out_features=32, group_size=None, symmetric=True, bias=True, scale_dtype=torch.float32
):
    generator = torch.Generator().manual_seed(bits)
    n_groups = -(-in_features // group_size) if group_size else 1
    linear = nn.Linear(in_features, out_features, bias=bias)
    codes = torch.randint(0, 2**bits, (out_features, in_features), generator=generator)
    scales = (torch.rand(out_features, n_groups, generator=generator) * 0.1 + 0.01).to(scale_dtype)
    zero_points = None if symmetric else torch.randint(0, 2**bits, (out_features, n_groups), generator=generator)
    layer = QuantLinear.of(linear, codes, scales, zero_points, bits=bits, group_size=group_size)
    zeros = torch.full((out_features, n_groups), 2 ** (bits - 1)) if zero_points is None else zero_points
    size = group_size or in_features
    expected = torch.tensor(
        [
            [
                scales[o, i // size].item() * (codes[o, i].item() - zeros[o, i // size].item())
                for i in range(in_features)
            ]
            for o in range(out_features)
        ]
    )
    return layer, expected, linear


def test_bytes_by_hand():
    codes = torch.tensor([[1, 15, 7, 8]])
    layer = QuantLinear.of(nn.Linear(4, 1), codes, torch.tensor([[0.5]]), None, bits=4, group_size=None)
    assert layer.codes.tolist() == [[1 + 16 * 15, 7 + 16 * 8]]  # two to a byte, the first in the low half
    assert layer.weight().tolist() == [[-3.5, 3.5, -0.5, 0.0]]
    layer = QuantLinear.of(nn.Linear(4, 1), codes % 4, torch.tensor([[2.0]]), None, bits=2, group_size=None)
    assert layer.codes.tolist() == [[1 + 4 * 3 + 16 * 3 + 64 * 0]]  # four to a byte


def test_a_symmetric_layer_saved_with_one_level_less_keeps_its_weights():
    saved = {  # what 4-bit rtn of [[7.0, -3.6, 0.5, -7.0]] left before symmetric grids used the code 0
        "codes": torch.tensor([[0x4F, 0x18]], dtype=torch.uint8),
        "scales": torch.tensor([[1.0]], dtype=torch.float16),
    }
    layer = QuantLinear(4, 1, bits=4, scale_dtype="float16", bias=False)
    layer.load_state_dict(saved)
    assert layer.weight().tolist() == [[7.0, -4.0, 0.0, -7.0]]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("in_features", "group_size"), [(24, None), (24, 8), (21, 8), (7, None)])
def test_weights_are_scale_times_code_less_zero_point(bits, symmetric, in_features, group_size):
    layer, expected, linear = make(bits, in_features, 5, group_size, symmetric)
    assert torch.allclose(layer.weight(), expected, rtol=1e-6)
    x = torch.randn(3, in_features)
    assert torch.allclose(layer(x), F.linear(x, expected, linear.bias), atol=1e-5)
    assert layer.count().nonzeros == torch.count_nonzero(expected)


@pytest.mark.parametrize(("bits", "stored"), [(2, 16), (3, 24), (4, 32), (5, 40), (8, 64)])
def test_a_row_of_64_weights_takes_its_nominal_bytes(bits, stored):
    layer, _, _ = make(bits, 64, 3, group_size=16, symmetric=False, scale_dtype=torch.float16)
    assert layer.codes.nbytes == 3 * stored
    assert layer.scales.nbytes == 3 * 4 * 2
    assert layer.zero_points.nbytes == 3 * -(-4 * bits // 8)


@pytest.mark.parametrize("shape", [(64,), (0, 64), (2, 0, 64), (2, 3, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_leading_axes_and_types(shape, bias, dtype):
    layer, expected, linear = make(bias=bias)
    x = torch.randn(shape, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    reference = F.linear(x.float(), expected, linear.bias)
    assert y.shape == reference.shape
    assert torch.allclose(y.float(), reference, atol=0.1 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric"), [(8, None, True), (4, 32, True), (4, 64, False), (4, 128, True)]
)
@pytest.mark.parametrize("rows", [1, 5, 16, 40])
def test_kernel_gives_what_unpacking_gives(bits, group_size, symmetric, rows):
    layer, expected, _ = make(bits, 128, 48, group_size, symmetric)
    layer.to(torch.bfloat16)
    assert layer.scales.dtype == torch.float32
    if layer.kernel(CPU, torch.bfloat16) is None:
        pytest.skip("this processor has no such kernel")
    x = torch.randn(rows, 128, dtype=torch.bfloat16)
    unpacked = layer(x).float()
    layer.prepare()
    assert layer._kernel is not None
    prepared = layer(x).float()
    exact = F.linear(x.float(), expected, layer.bias.float())
    tolerance = 0.02 * exact.abs().max()
    assert (prepared - exact).abs().max() < tolerance
    assert (prepared - unpacked).abs().max() < tolerance


def test_kernel_is_used_for_few_rows_only(monkeypatch):
    layer, _, _ = make(8, 128, 48)
    layer.to(torch.bfloat16)
    calls = []
    layer._kernel = lambda x: calls.append(len(x)) or x.new_zeros(len(x), 48)
    for rows in (1, 16, 17):
        layer(torch.randn(rows, 128, dtype=torch.bfloat16))
    layer(torch.randn(1, 128, dtype=torch.bfloat16, requires_grad=True))
    assert calls == [1, 16]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dtype": torch.float32}, "the float32 kernels are slower than unpacking"),
        ({"bits": 3}, "3 bits have no kernel"),
        ({"bits": 8, "symmetric": False}, "the int8 kernel has no zero points"),
        ({"bits": 8, "group_size": 32}, "the int8 kernel has no groups"),
        ({"bits": 4}, "the int4 kernel wants groups"),
        ({"bits": 4, "group_size": 16}, "groups of 16 have no kernel"),
        ({"bits": 4, "group_size": 32, "out_features": 24}, "the int4 kernel wants whole tiles"),
    ],
)
def test_where_there_is_no_kernel_none_is_claimed(change, why):
    dtype = change.pop("dtype", torch.bfloat16)
    layer, expected, _ = make(**{"bits": 8, "bias": False, **change})
    assert layer.kernel(CPU, dtype) is None, why
    layer.prepare()
    x = torch.eye(64)
    assert torch.allclose(layer(x).T, expected, atol=1e-5)


def test_arguments_and_state_construct_an_equal_layer():
    layer, _, _ = make(3, 21, 5, group_size=8, symmetric=False, scale_dtype=torch.float16)
    with empty_weights():
        again = QuantLinear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    x = torch.randn(4, 21)
    assert torch.equal(again(x), layer(x))
    with torch.device("meta"):
        meta = QuantLinear(**layer.arguments())
    shapes = {name: (t.shape, t.dtype) for name, t in layer.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in meta.state_dict().items()} == shapes


def test_dense_is_the_linear_layer_with_rounded_weights():
    layer, _, linear = make()
    dense = layer.dense()
    assert torch.equal(dense.weight, layer.weight())
    assert torch.equal(dense.bias, linear.bias)
    dense.bias.data.add_(1)
    assert torch.equal(layer.bias, linear.bias)


def test_casting_changes_the_bias_and_keeps_the_scales():
    layer, expected, _ = make(scale_dtype=torch.float16)
    layer.to(torch.bfloat16)
    assert layer.arguments()["dtype"] == "bfloat16"
    assert layer.bias.dtype == torch.bfloat16
    assert layer.dense().weight.dtype == torch.bfloat16
    assert torch.allclose(layer.weight(), expected, rtol=1e-6)


def test_a_prepared_layer_can_be_copied():
    layer, _, _ = make(8)
    layer.to(torch.bfloat16).prepare()
    again = copy.deepcopy(layer)
    assert again._kernel is None  # it would go on multiplying by the weights of the original
    assert torch.equal(again.weight(), layer.weight())


def test_gradient_passes_to_the_input():
    layer, expected, _ = make()
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, expected.sum(0).expand(2, -1), atol=1e-5)
