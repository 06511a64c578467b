"""Linear layer with a palette: each weight is the index of one of a few values, which its rows share.

Paper: https://arxiv.org/abs/1510.00149 (section 3: weight sharing). No kernel here multiplies indices, so weights are
unpacked for each call: the form saves bytes only.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.bitpack import pack_bits, packed_length, unpack_bits
from core.nn.integer_linear import DTYPES, IntegerLinear, dtype_name
from core.nn.replacement import WeightCount


class PaletteLinear(IntegerLinear):
    """Weights `palettes[code]`: every `rows` consecutive output channels share a palette of 2**bits values.

    `rows` None means one palette for the whole layer; the last group of rows is smaller where `rows` does not divide
    the outputs. Activations keep their precision.
    """

    palettes: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        *,
        rows: int | None = None,
        palette_dtype: str = "float32",
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.bits, self.rows = bits, rows
        n_palettes = -(-out_features // rows) if rows else 1
        code_bytes = packed_length(in_features, bits)
        self.register_buffer("codes", torch.zeros(out_features, code_bytes, dtype=torch.uint8))
        self.register_buffer("palettes", torch.zeros(n_palettes, 2**bits, dtype=DTYPES[palette_dtype]))

    @classmethod
    def of(cls, linear: nn.Linear, codes: Tensor, palettes: Tensor, *, bits: int, rows: int | None) -> Self:
        """The layer that replaces `linear`, of codes [out, in] in 0..2**bits - 1 and palettes [n_palettes, 2**bits]."""
        layer = cls(
            linear.in_features,
            linear.out_features,
            bits,
            rows=rows,
            palette_dtype=dtype_name(palettes.dtype),
            bias=linear.bias is not None,
            dtype=dtype_name(linear.weight.dtype),
        ).to(linear.weight.device)
        layer.codes, layer.palettes = pack_bits(codes.to(torch.uint8), bits), palettes.contiguous()
        if layer.bias is not None:
            layer.bias.data.copy_(linear.bias.data)
        return layer

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bits": self.bits,
            "rows": self.rows,
            "palette_dtype": dtype_name(self.palettes.dtype),
            "bias": self.bias is not None,
            "dtype": dtype_name(self.dtype),
        }

    def weight(self) -> Tensor:
        codes = unpack_bits(self.codes, self.bits, self.in_features).long()
        by_row = self.palettes.float().repeat_interleave(self.rows or self.out_features, dim=0)[: self.out_features]
        return by_row.gather(1, codes)

    def multiply(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight().to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def count(self) -> WeightCount:
        return WeightCount(
            weights=self.in_features * self.out_features,
            nonzeros=int(torch.count_nonzero(self.weight())),
            bits=float(self.bits),
        )
