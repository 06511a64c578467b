"""Packed experts: as many layers as experts, or pruned weights without their zeros."""

import pytest
import torch

from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear, SparseExpertLinear
from core.nn.experts.segments import Segments
from core.techniques.quantization.dynamic_int8 import quantize as quantize_int8

COUNTS = torch.tensor([3, 0, 4, 1])
EXPERT = torch.arange(4).repeat_interleave(COUNTS)


def layer(bias=True):
    torch.manual_seed(0)
    made = ExpertLinear(4, 6, 5, bias=bias)
    for parameter in made.parameters():
        parameter.data.normal_()
    return made, torch.randn(8, 6)


def test_an_expert_has_its_own_rows_of_the_weight_and_the_bias():
    made, x = layer()
    rows = [
        made.weight[5 * e : 5 * e + 5] @ row + made.bias[5 * e : 5 * e + 5] for e, row in zip(EXPERT, x, strict=True)
    ]
    torch.testing.assert_close(made(x, Segments(COUNTS)), torch.stack(rows))
    linears = made.linears()
    torch.testing.assert_close(
        torch.stack([linears[e](row) for e, row in zip(EXPERT, x, strict=True)]), torch.stack(rows)
    )
    assert linears[2].weight.data_ptr() == made.weight[10:].data_ptr()


def test_each_row_meets_the_integer_layer_of_its_expert():
    made, x = layer()
    packed = PackedExpertLinear.of([quantize_int8(linear) for linear in made.linears()])
    rows = [quantize_int8(made.linears()[e])(row[None])[0] for e, row in zip(EXPERT, x, strict=True)]
    torch.testing.assert_close(packed(x, Segments(COUNTS)), torch.stack(rows))
    assert packed(x[:0], Segments(0 * COUNTS)).shape == (0, 5)


@pytest.mark.parametrize("bias", [True, False])
def test_pruned_weights_are_stored_without_zeros_and_multiply_the_same(bias):
    made, x = layer(bias)
    mask = torch.rand(20, 6) < 0.3
    made.weight.data *= mask
    packed = SparseExpertLinear.pack(made, mask)
    assert packed.count().nonzeros == mask.sum()
    expected = made(x, Segments(COUNTS))
    torch.testing.assert_close(packed(x, Segments(COUNTS)), expected)
    packed.prepare()
    torch.testing.assert_close(packed(x, Segments(COUNTS)), expected)
    again = SparseExpertLinear(**packed.arguments())
    again.load_state_dict(packed.state_dict())
    torch.testing.assert_close(again(x, Segments(COUNTS)), expected)
