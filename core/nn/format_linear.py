"""Linear layer whose weights are packed in a number format beyond integer grids, and unpacked for each call."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.formats.catalogue import FORMATS, FormatName, NumberFormat
from core.nn.integer_linear import DTYPES, IntegerLinear, dtype_name
from core.nn.replacement import WeightCount


class FormatLinear(IntegerLinear):
    """Weights `value of the code * scale`, a scale for each block of `block_rows` × `block_columns` weights.

    None means all rows or columns; blocks at the end are smaller where they do not divide the weight. `codes` are
    packed row by row. The format decides how the scales are stored, `scale_dtype` is for those that are not codes
    themselves. Activations keep their precision.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        format: FormatName,
        *,
        block_rows: int | None = 1,
        block_columns: int | None = None,
        scale_dtype: str = "float32",
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.format, self.scale_dtype = format, scale_dtype
        self.block_rows, self.block_columns = block_rows, block_columns
        n_bytes = self.number_format.element.packed_length(in_features)
        self.register_buffer("codes", torch.zeros(out_features, n_bytes, dtype=torch.uint8))
        shape = (math.ceil(out_features / (block_rows or out_features)), math.ceil(in_features / self._columns))
        for name, tensor in self.number_format.scales.empty(shape, DTYPES[scale_dtype]).items():
            self.register_buffer(name, tensor)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        linear: nn.Linear,
        format: FormatName,
        codes: Tensor,
        scales: Tensor,
        *,
        block_rows: int | None = 1,
        block_columns: int | None = None,
        scale_dtype: torch.dtype = torch.float32,
    ) -> Self:
        """The layer that replaces `linear`: codes uint8 [out, in], and the rounded scales of its blocks."""
        layer = cls(
            linear.in_features,
            linear.out_features,
            format,
            block_rows=block_rows,
            block_columns=block_columns,
            scale_dtype=dtype_name(scale_dtype),
            bias=linear.bias is not None,
            dtype=dtype_name(linear.weight.dtype),
        ).to(linear.weight.device)
        layer.codes = layer.number_format.element.pack(codes)
        for name, tensor in layer.number_format.scales.store(scales, linear.weight.abs().amax(), scale_dtype).items():
            setattr(layer, name, tensor.contiguous())
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "format": self.format,
            "block_rows": self.block_rows,
            "block_columns": self.block_columns,
            "scale_dtype": self.scale_dtype,
            "bias": self.bias is not None,
            "dtype": dtype_name(self.dtype),
        }

    def multiply(self, x: Tensor) -> Tensor:
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        return F.linear(x, self.weight().to(x.dtype), bias)

    def weight(self) -> Tensor:
        return self._scaled(self.codes, self._scale_rows())

    def rows(self, index: Tensor) -> Tensor:
        return self._scaled(self.codes[index], self._scale_rows()[index])

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def count(self) -> WeightCount:
        return WeightCount(
            weights=self.in_features * self.out_features,
            nonzeros=int(torch.count_nonzero(self.weight())),
            bits=self.number_format.element.bits,
        )

    @property
    def number_format(self) -> NumberFormat:
        """What the codes and the stored scales mean."""
        return FORMATS[self.format]

    @property
    def _columns(self) -> int:
        return self.block_columns or self.in_features

    def _scale_rows(self) -> Tensor:
        """The scales of each row's blocks, float32 [out, n_blocks]."""
        scales = self.number_format.scales.restore(self._buffers)  # type: ignore[arg-type]
        if self.block_rows == 1:
            return scales
        return scales.repeat_interleave(self.block_rows or self.out_features, dim=0)[: self.out_features]

    def _scaled(self, packed: Tensor, scales: Tensor) -> Tensor:
        """The weights [rows, in] of packed codes [rows, n_bytes] and scales [rows, n_blocks]."""
        element = self.number_format.element
        values = element.decode(element.unpack(packed, self.in_features))
        padded = F.pad(values, (0, scales.shape[1] * self._columns - self.in_features))
        blocks = padded.unflatten(1, (scales.shape[1], self._columns)) * scales[:, :, None]
        return blocks.flatten(1)[:, : self.in_features].contiguous()
