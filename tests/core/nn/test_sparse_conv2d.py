"""SparseConv2d: the same numbers as the masked convolution; groups of N:M lie along input channels."""

import json

import pytest
import torch
from torch import nn

from core.nn.sparse_conv2d import SparseConv2d

CONVOLUTIONS = [
    {"in_channels": 8, "out_channels": 6, "kernel_size": 3, "padding": 1, "stride": 2},
    {"in_channels": 8, "out_channels": 8, "kernel_size": (1, 3), "groups": 2, "bias": False},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": "same", "dilation": 2},
]


def two_of_four(conv: nn.Conv2d) -> torch.Tensor:
    shape = conv.weight.shape  # [K, C, R, S]
    scores = torch.rand(shape[0], shape[1] // 4, 4, *shape[2:], generator=torch.Generator().manual_seed(0))
    return torch.zeros_like(scores).scatter(2, scores.topk(2, dim=2).indices, 1).bool().view(shape)


@pytest.mark.parametrize("arguments", CONVOLUTIONS)
def test_outputs_weights_and_arguments_are_those_of_the_convolution(arguments):
    torch.manual_seed(0)
    conv = nn.Conv2d(**arguments)
    mask = two_of_four(conv)
    conv.weight.data *= mask
    packed = SparseConv2d.pack(conv, mask)
    assert (packed.layout.n, packed.layout.m) == (2, 4)
    x = torch.randn(2, conv.in_channels, 9, 9)
    for module in (packed, packed.dense()):
        assert torch.equal(module(x), conv(x))
    packed.prepare()
    assert torch.equal(packed(x), conv(x))
    again = SparseConv2d(**json.loads(json.dumps(packed.arguments())))
    again.load_state_dict(packed.state_dict())
    assert torch.equal(again(x), conv(x))
    assert torch.equal(packed.dense().weight, conv.weight)


def test_multiplications_are_those_of_the_dense_convolution():
    conv = nn.Conv2d(8, 6, 3, padding=1, stride=2)
    packed = SparseConv2d.pack(conv, two_of_four(conv))
    assert packed.macs(torch.Size([2, 8, 10, 10])) == 2 * 6 * 5 * 5 * 8 * 9


def test_other_paddings_are_refused():
    conv = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match="reflect"):
        SparseConv2d.pack(conv, two_of_four(conv))
