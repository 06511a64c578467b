"""Integer layers of pruned weights: the same products as with all codes, in the bytes of the kept ones."""

import copy
import math

import pytest
import torch
from torch import nn

from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseDynamicInt8Linear, SparseQuantLinear, without_zeros
from core.techniques.quantization.dynamic_int8 import quantize as quantize_int8
from core.techniques.quantization.rtn import Rtn

CPU = torch.device("cpu")


def pruned(in_features=64, out_features=48, kind="2:4", bias=True) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    linear = nn.Linear(in_features, out_features, bias=bias)
    scores = torch.rand(out_features, in_features)
    if kind == "2:4":
        rank = scores.view(out_features, -1, 4).argsort(-1).argsort(-1)
        mask = (rank < 2).view_as(scores)
    else:
        mask = scores < float(kind)
    with torch.no_grad():
        linear.weight.mul_(mask)
    return linear, mask


def quantized(bits, symmetric=True, group_size=None, **options) -> tuple[QuantLinear, torch.Tensor]:
    linear, mask = pruned(**options)
    with torch.no_grad():
        linear.weight[linear.weight.abs() > 0] += 0.02 * linear.weight.sign()[linear.weight.abs() > 0]
    granularity = {"granularity": "group", "group_size": group_size} if group_size else {}
    return Rtn(bits=bits, symmetric=symmetric, **granularity).quantize(linear), mask


def test_codes_and_places_by_hand():
    codes = torch.tensor([[8, 3, 9, 8, 8, 8, 15, 1]] * 4)  # 4 bits, 8 is zero; two of every four are kept
    layer = QuantLinear.of(nn.Linear(8, 4), codes, torch.full((4, 1), 0.5), None, bits=4, group_size=None)
    packed = SparseQuantLinear.pack(layer)
    assert packed.codes.tolist() == [3 + 16 * 9, 15 + 16 * 1] * 4
    # {1, 2} is the third of six patterns, {2, 3} the last: 2 and 5 in 3 bits each, four times
    assert packed.places.tolist() == [0b10_101_010, 0b1_010_101_0, 0b101_010_10]
    assert packed.weight().tolist() == [[0, -2.5, 0.5, 0, 0, 0, 3.5, -3.5]] * 4


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("in_features", "group_size"), [(64, None), (64, 16), (44, 8)])
@pytest.mark.parametrize("kind", ["2:4", "0.1"])
def test_weights_and_products_are_those_of_all_codes(bits, symmetric, in_features, group_size, kind):
    layer, mask = quantized(bits, symmetric, group_size, in_features=in_features, kind=kind)
    packed = SparseQuantLinear.pack(layer)
    assert torch.equal(packed.weight(), layer.weight())
    assert not packed.weight()[~mask].any()
    assert packed.layout.n_values <= mask.sum()
    x = torch.randn(5, in_features)
    assert torch.equal(packed(x), layer(x))
    assert packed.count() == layer.count()
    again = SparseQuantLinear(**packed.arguments())
    again.load_state_dict(packed.state_dict())
    assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("kind", ["2:4", "0.05", "0.6"])
@pytest.mark.parametrize("bias", [True, False])
def test_int8_layers_are_those_of_all_codes_prepared_or_not(kind, bias):
    linear, mask = pruned(kind=kind, bias=bias)
    layer = quantize_int8(linear)
    packed = SparseDynamicInt8Linear.pack(layer)
    x = torch.randn(7, 64)
    assert torch.equal(packed(x), layer(x))
    packed.prepare()
    layer.prepare()
    assert torch.equal(packed(x), layer(x))
    assert torch.equal(copy.deepcopy(packed)(x), layer(x))
    assert torch.equal(packed.weight(), layer.weight())
    assert not packed.weight()[~mask].any()
    assert packed.count() == layer.count()
    again = SparseDynamicInt8Linear(**packed.arguments())
    again.load_state_dict(packed.state_dict())
    assert torch.equal(again(x), layer(x))


def test_kernels_are_those_of_the_layer_with_all_codes():
    layer = quantize_int8(pruned()[0])
    packed = SparseDynamicInt8Linear.pack(layer)
    assert packed.kernel(CPU, torch.float32) == layer.kernel(CPU, torch.float32)
    for bits, group_size in ((8, None), (4, 32), (3, None)):
        layer = quantized(bits, group_size=group_size)[0].to(torch.bfloat16)
        packed = SparseQuantLinear.pack(layer)
        assert packed.kernel(CPU, torch.bfloat16) == layer.kernel(CPU, torch.bfloat16)
        assert packed.kernel(CPU, torch.float32) is None
        packed.prepare()
        layer.prepare()
        x = torch.randn(3, 64, dtype=torch.bfloat16)
        assert torch.equal(packed(x), layer(x))


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_payload_is_codes_of_kept_weights_and_the_fewest_bits_a_group(bits, n, m):
    linear, out_features, in_features = nn.Linear(64, 48), 48, 64
    scores = torch.rand(out_features, in_features // m, m)
    mask = (scores.argsort(-1).argsort(-1) < n).flatten(1)
    codes = torch.where(mask, torch.randint(0, 2 ** (bits - 1), mask.shape), 2 ** (bits - 1))  # none kept is zero
    layer = QuantLinear.of(linear, codes, torch.ones(48, 1), None, bits=bits, group_size=None)
    packed = SparseQuantLinear.pack(layer)
    groups = out_features * in_features // m
    assert packed.codes.nbytes == groups * n * bits // 8
    assert packed.places.nbytes == math.ceil(groups * math.ceil(math.log2(math.comb(m, n))) / 8)


def test_few_bits_are_rather_filled_up_than_told_apart():
    codes = torch.full((32, 16, 4), 2)  # 2 bits; one of every four is kept, but in a quarter of the groups none
    codes[:, :12, 0] = 1
    layer = QuantLinear.of(nn.Linear(64, 32), codes.flatten(1), torch.ones(32, 1), None, bits=2, group_size=None)
    packed = SparseQuantLinear.pack(layer)
    assert (packed.layout.n, packed.layout.m) == (1, 4)
    assert torch.equal(packed.weight(), layer.weight())


def test_layers_without_enough_zeros_are_left_alone():
    torch.manual_seed(0)
    dense = quantize_int8(nn.Linear(64, 48))
    assert without_zeros(dense) is dense
    layer, _ = quantized(4, kind="0.9")
    assert without_zeros(layer) is layer
    small = without_zeros(quantized(4, kind="0.5")[0])
    assert type(small) is SparseQuantLinear
    assert without_zeros(small) is small


def test_casting_and_moving_keep_the_scales():
    layer, _ = quantized(4, group_size=16)
    packed = SparseQuantLinear.pack(layer)
    weight = packed.weight()
    packed.to(torch.bfloat16)
    assert packed.scales.dtype == layer.scales.dtype
    assert torch.equal(packed.weight(), weight)
    assert packed.dense().weight.dtype == torch.bfloat16


def test_nothing_kept_is_nothing_stored():
    linear = nn.Linear(16, 8)
    nn.init.zeros_(linear.weight)
    packed = SparseDynamicInt8Linear.pack(quantize_int8(linear))
    assert packed.codes.numel() == 0
    x = torch.randn(3, 16)
    assert torch.equal(packed(x), linear.bias.expand(3, 8))
