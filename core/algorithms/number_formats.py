"""Round weights to number formats beyond integer grids, each by the format's own rule for its scales.

The scale of a block is, with `amax` its largest magnitude: for FP8 amax / 448 (E4M3) or amax / 57344 (E5M2), for the MX
formats 2**(floor(log2 amax) - exponent of the largest value), for NVFP4 amax / 6, for NF4 amax, for binary the mean
magnitude (XNOR-Net, https://arxiv.org/abs/1603.05279), and for ternary the mean of the magnitudes above 0.7 times the
mean one (https://arxiv.org/abs/1605.04711). Scales are rounded to what can be stored before codes are chosen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from core.algorithms.quantization_grids import Fit, Grid, QuantizedWeight, quantize_groups
from core.nn.format_linear import FormatLinear
from core.nn.formats.catalogue import FORMATS, FormatName, NumberFormat
from core.nn.formats.elements import BINARY_TYPE, TERNARY_TYPE, ElementType
from core.nn.formats.scales import PowerOfTwoScales
from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise

Sharing = Literal["tensor", "channel", "block"]
SQUARE = 128  # rows and columns of a block that shares a scale
_TERNARY_THRESHOLD = 0.7  # of the mean magnitude


@dataclass(frozen=True)
class FormatGrid(Grid):
    """The values of an element type times the scale of each row [rows, 1]; there are no zero points."""

    element: ElementType

    @classmethod
    def of(cls, scale: Tensor, element: ElementType) -> "FormatGrid":
        """The grids with these scales."""
        return cls(scale, torch.zeros_like(scale), math.ceil(element.bits), element)

    def quantize(self, x: Tensor) -> Tensor:
        return self.element.encode(x / self.scale.where(self.scale > 0, 1.0)).float()

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.element.decode(codes.to(torch.uint8)) * self.scale


@dataclass(frozen=True)
class FormatScheme:
    """How the weights of a linear layer are rounded to a number format; used like a `QuantizationScheme`."""

    format: FormatName
    sharing: Sharing = "channel"  # what shares a scale, in formats that leave it open

    @property
    def number_format(self) -> NumberFormat:
        """The format itself."""
        return FORMATS[self.format]

    def fit(self, rows: Tensor, largest: Tensor, dtype: torch.dtype = torch.float32) -> FormatGrid:
        """The grid of each row of a block of columns [rows, n]; `largest` is the whole weight's largest magnitude."""
        format, n_rows = self.number_format, self._block_rows or len(rows)
        if n_rows == 1:
            scales = block_scales(format, rows)
        else:
            parts = [block_scales(format, part.reshape(1, -1)).expand(len(part), 1) for part in rows.split(n_rows)]
            scales = torch.cat(parts)
        return FormatGrid.of(format.scales.round(scales, largest, dtype), format.element)

    def pack(self, linear: nn.Linear, quantize: Callable[[Fit, int | None], QuantizedWeight]) -> FormatLinear:
        """The layer that replaces `linear`, with what `quantize` makes of its weight.

        `quantize` is given a function that fits grids to a block of columns, and the columns of a block (None: all).
        """
        columns = self._block_columns
        columns = columns if columns and columns < linear.in_features else None
        largest = linear.weight.detach().abs().amax()
        for dtype in self._scale_dtypes(linear.weight.dtype):
            codes, scales, _ = quantize(partial(self.fit, largest=largest, dtype=dtype), columns)
            if is_precise(scales[scales > 0], dtype):
                break
        return FormatLinear.of(
            linear,
            self.format,
            codes.to(torch.uint8),
            scales[:: self._block_rows or len(scales)],
            block_rows=self._block_rows,
            block_columns=columns,
            scale_dtype=dtype,
        )

    def quantize(self, linear: nn.Linear) -> FormatLinear:
        """The layer nearest to `linear`."""
        return self.pack(linear, partial(self.round, linear.weight.detach().float()))

    def round(self, weight: Tensor, fit: Fit, columns: int | None) -> QuantizedWeight:
        """Round a weight [out, in] to the grids that `fit` chooses for each block of its columns."""
        if self._block_rows == 1:
            return quantize_groups(weight, fit, columns)
        parts = weight.split(columns or weight.shape[1], dim=1)
        grids = [fit(part) for part in parts]
        codes = [grid.quantize(part) for grid, part in zip(grids, parts, strict=True)]
        scales = torch.cat([grid.scale for grid in grids], dim=1)
        return QuantizedWeight(torch.cat(codes, dim=1), scales, torch.zeros_like(scales))

    @property
    def _block_rows(self) -> int | None:
        if self.number_format.block is not None or self.sharing == "channel":
            return 1
        return SQUARE if self.sharing == "block" else None

    @property
    def _block_columns(self) -> int | None:
        return self.number_format.block or (SQUARE if self.sharing == "block" else None)

    def _scale_dtypes(self, weight: torch.dtype) -> tuple[torch.dtype, ...]:
        """Formats with blocks of their own also say how scales are stored."""
        return scale_dtypes(weight) if self.number_format.block is None else (torch.float32,)


def block_scales(format: NumberFormat, rows: Tensor) -> Tensor:
    """The scale [rows, 1] of each row of values [rows, n], not rounded; a row of zeros has the scale 0."""
    magnitudes = rows.float().abs()
    if format.element is BINARY_TYPE:
        return magnitudes.mean(1, keepdim=True)
    if format.element is TERNARY_TYPE:
        large = magnitudes > _TERNARY_THRESHOLD * magnitudes.mean(1, keepdim=True)
        return (magnitudes * large).sum(1, keepdim=True) / large.sum(1, keepdim=True).clamp(min=1)
    largest = magnitudes.amax(1, keepdim=True)
    if isinstance(format.scales, PowerOfTwoScales):
        return largest / 2 ** math.floor(math.log2(format.element.largest))
    return largest / format.element.largest
