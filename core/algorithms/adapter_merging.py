"""Fold a low-rank term into integer weights: round the sum to the grid that the weights are on already.

The scales and zero points stay, so what lies beyond a grid's ends is cut off, and a change of less than half a step is
lost. A weight that is zero stays zero: pruned weights are not told apart from those that were rounded to zero.
"""

import copy

import torch
from torch import Tensor

from core.nn.bitpack import pack_bits
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.nn.integer_linear import IntegerLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseDynamicInt8Linear, SparseQuantLinear


def can_merge(layer: IntegerLinear) -> bool:
    """Whether the layer's weights lie on a uniform grid, which others can be rounded to."""
    return isinstance(layer, (QuantLinear, DynamicInt8Linear))


@torch.no_grad()
def merged(layer: IntegerLinear, term: Tensor) -> IntegerLinear:
    """The layer with `term` [out, in] added to its weights, on the same grid and in the same form."""
    made = copy.deepcopy(layer)
    if isinstance(layer, QuantLinear):
        codes = _merged_codes(layer, term)
        if isinstance(layer, SparseQuantLinear):
            codes = codes.masked_select(layer.layout.decode(layer.places))
        made.codes = pack_bits(codes, layer.bits)
        return made
    assert isinstance(layer, DynamicInt8Linear)
    whole = layer.unpacked()
    moved = (whole + term / layer.scales.float()[:, None]).round().clamp(-128, 127).to(torch.int8)
    codes = torch.where(whole == 0, whole, moved)
    if isinstance(layer, SparseDynamicInt8Linear):
        codes = codes.masked_select(layer.layout.decode(layer.places))
    made.codes = codes
    return made


def _merged_codes(layer: QuantLinear, term: Tensor) -> Tensor:
    """Codes uint8 [out, in] nearest to the sum."""
    codes, scales, _ = layer.unpacked()
    of_each = scales.float().repeat_interleave(layer.group_size or layer.in_features, dim=1)[:, : layer.in_features]
    moved = (codes + term / of_each).round().clamp(0, 2**layer.bits - 1).to(torch.uint8)
    return torch.where(codes == layer.zero_codes(), codes, moved)
