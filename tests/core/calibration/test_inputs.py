"""A layer's weight as matrices and its inputs as vectors: their product is what the layer computes."""

import pytest
import torch
from torch import nn

from core.calibration import groups_of, input_rows, matrices_of, weight_from_matrices
from core.nn.packing import rows_of

CONVS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2)},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "groups": 2},
    {"kernel_size": (4, 3), "padding": "same", "groups": 8},
    {"kernel_size": 2, "padding": "valid"},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("options", CONVS)
def test_matrices_times_vectors_are_what_a_convolution_computes(options):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 16, bias=False, **options), torch.randn(3, 8, 9, 7)
    matrices, rows = matrices_of(conv.weight, groups_of(conv)), input_rows(conv, x)
    outputs = rows @ matrices.mT  # [groups, n, out / groups]
    expected = conv(x)
    found = outputs.unflatten(1, (3, -1)).permute(1, 0, 3, 2).reshape(expected.shape)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(weight_from_matrices(matrices, conv.weight.shape), conv.weight)


def test_matrices_times_vectors_are_what_a_linear_layer_computes():
    linear, x = nn.Linear(8, 5, bias=False), torch.randn(2, 3, 8)
    rows = input_rows(linear, x)
    assert torch.allclose((rows @ matrices_of(linear.weight).mT)[0], linear(x).flatten(0, 1), atol=1e-6)


def test_consecutive_columns_are_consecutive_input_channels_as_kernels_see_them():
    weight = torch.arange(2 * 4 * 3 * 3).view(2, 4, 3, 3)
    groups = {tuple(group) for group in rows_of(weight).tolist()}
    assert {tuple(group) for group in matrices_of(weight).reshape(-1, 4).tolist()} == groups
