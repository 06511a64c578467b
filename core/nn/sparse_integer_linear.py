"""Integer layers of pruned weights: the codes of the kept weights, and their positions in the smallest layout.

They compute the same as the layers with all codes, with the same kernels: `prepare` restores the zeros, since no kernel
here multiplies sparse codes. Only the small form is saved.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from core.nn.activation_quant_linear import ActivationQuantLinear, QuantizedInput
from core.nn.activation_quantizer import ActivationQuantizer
from core.nn.bitpack import pack_bits, packed_length, unpack_bits
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.nn.integer_linear import IntegerLinear
from core.nn.llm_int8_linear import LlmInt8Linear
from core.nn.packing import Layout, make_layout, smallest_layout
from core.nn.quant_linear import QuantLinear


class SparseQuantLinear(QuantLinear):
    """A `QuantLinear` that stores only the `codes` [n_bytes] at `places`; all others equal their zero points."""

    places: Tensor  # uint8 [n_bytes]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        *,
        layout: str,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        **format: Any,
    ):
        super().__init__(in_features, out_features, bits, **format)
        self.layout: Layout = make_layout(layout, out_features, in_features, nnz=nnz, n=n, m=m)
        self.codes = torch.zeros(packed_length(self.layout.n_values, bits), dtype=torch.uint8)
        self.register_buffer("places", torch.zeros(self.layout.n_bytes, dtype=torch.uint8))

    @classmethod
    @torch.no_grad()
    def pack(cls, layer: QuantLinear) -> Self:
        """The same layer with only the codes of nonzero weights stored."""
        codes = layer.unpacked()[0]
        kept = codes != layer.zero_codes()
        layout = smallest_layout(kept, layer.bits / 8)
        packed = cls(**layer.arguments(), **layout.arguments()).to(codes.device)
        stored = layout.fill(kept)
        packed.codes = pack_bits(codes.masked_select(stored), layer.bits)
        packed.places = layout.encode(stored)
        packed.scales, packed.zero_points, packed.bias = layer.scales, layer.zero_points, layer.bias
        return packed.train(layer.training)

    def unpacked(self) -> tuple[Tensor, Tensor, Tensor]:
        codes = self.zero_codes().contiguous()
        stored = unpack_bits(self.codes, self.bits, self.layout.n_values)
        codes.masked_scatter_(self.layout.decode(self.places), stored)
        return codes, self.scales, self.unpacked_zero_points()

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), **self.layout.arguments()}


class SparseActivationQuantLinear(QuantizedInput, SparseQuantLinear):
    """A `SparseQuantLinear` whose inputs are quantized."""

    @classmethod
    def pack(cls, layer: QuantLinear) -> Self:
        assert isinstance(layer, QuantizedInput)
        packed = super().pack(layer)
        packed.activation = layer.activation
        return packed


class SparseDynamicInt8Linear(DynamicInt8Linear):
    """A `DynamicInt8Linear` that stores only the `codes` [n_values] at `places`; all others are zero."""

    places: Tensor  # uint8 [n_bytes]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        layout: str,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        **format: Any,
    ):
        super().__init__(in_features, out_features, **format)
        self.layout: Layout = make_layout(layout, out_features, in_features, nnz=nnz, n=n, m=m)
        self.codes = torch.zeros(self.layout.n_values, dtype=torch.int8)
        self.register_buffer("places", torch.zeros(self.layout.n_bytes, dtype=torch.uint8))

    @classmethod
    @torch.no_grad()
    def pack(cls, layer: DynamicInt8Linear) -> Self:
        """The same layer with only the nonzero codes stored."""
        codes = layer.unpacked()
        layout = smallest_layout(codes != 0, 1)
        packed = cls(**layer.arguments(), **layout.arguments()).to(codes.device)
        stored = layout.fill(codes != 0)
        packed.codes = codes.masked_select(stored)
        packed.places = layout.encode(stored)
        packed.scales, packed.bias = layer.scales, layer.bias
        return packed.train(layer.training)

    def unpacked(self) -> Tensor:
        codes = self.codes.new_zeros(self.out_features, self.in_features)
        return codes.masked_scatter_(self.layout.decode(self.places), self.codes)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), **self.layout.arguments()}


class SparseLlmInt8Linear(LlmInt8Linear, SparseDynamicInt8Linear):
    """A `LlmInt8Linear` that stores only the nonzero codes."""


def without_zeros(layer: IntegerLinear) -> IntegerLinear:
    """The layer with only its nonzero codes stored, where this takes fewer bytes; otherwise `layer` itself."""
    pack = _PACKERS.get(type(layer))
    if pack is None:
        return layer
    packed = pack(layer)
    return packed if packed.codes.nbytes + packed.places.nbytes < layer.codes.nbytes else layer


def with_activations(layer: QuantLinear, activation: ActivationQuantizer) -> QuantLinear:
    """The layer with the same weights whose inputs `activation` rounds; `layer` is of a class in `ROUNDS_INPUTS`."""
    return ROUNDS_INPUTS[type(layer)].around(layer, activation)


ROUNDS_INPUTS: dict[type[QuantLinear], type[QuantizedInput]] = {
    QuantLinear: ActivationQuantLinear,
    SparseQuantLinear: SparseActivationQuantLinear,
}
_PACKERS: dict[type[IntegerLinear], Callable[..., Any]] = {
    ActivationQuantLinear: SparseActivationQuantLinear.pack,
    QuantLinear: SparseQuantLinear.pack,
    DynamicInt8Linear: SparseDynamicInt8Linear.pack,
    LlmInt8Linear: SparseLlmInt8Linear.pack,
}
