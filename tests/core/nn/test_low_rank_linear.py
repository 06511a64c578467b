"""LowRankLinear: the nearest matrix of its rank, by Eckart and Young."""

import json

import pytest
import torch
from torch import nn

from core.nn.low_rank_linear import LowRankLinear


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_squared_error_is_the_sum_of_discarded_squared_singular_values(rank):
    torch.manual_seed(0)
    linear = nn.Linear(20, 12, dtype=torch.float64)
    layer = LowRankLinear.from_linear(linear, rank)
    error = (layer.up.weight @ layer.down.weight - linear.weight).square().sum()
    discarded = torch.linalg.svdvals(linear.weight)[rank:].square().sum()
    torch.testing.assert_close(error, discarded, rtol=1e-10, atol=1e-12)


def test_a_matrix_of_that_rank_comes_back():
    torch.manual_seed(0)
    linear = nn.Linear(20, 12, dtype=torch.float64)
    linear.weight.data = torch.randn(12, 3, dtype=torch.float64) @ torch.randn(3, 20, dtype=torch.float64)
    x = torch.randn(4, 20, dtype=torch.float64)
    torch.testing.assert_close(LowRankLinear.from_linear(linear, 3)(x), linear(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_arguments_build_the_same_module(bias):
    layer = LowRankLinear.from_linear(nn.Linear(20, 12, bias=bias), 4)
    again = LowRankLinear(**json.loads(json.dumps(layer.arguments())))
    again.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 20)
    assert torch.equal(again(x), layer(x))
    assert sum(p.numel() for p in layer.parameters()) == 4 * 32 + 12 * bias


def test_half_precision_is_factored_in_float32():
    layer = LowRankLinear.from_linear(nn.Linear(20, 12, dtype=torch.bfloat16), 4)
    assert layer.up.weight.dtype == layer.down.weight.dtype == torch.bfloat16
