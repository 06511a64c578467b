"""Linear layer with packed weights of 2 to 8 bits, unpacked for each call or multiplied by a kernel.

Paper: https://arxiv.org/abs/1712.05877 (section 2.1: scales and zero points), here for weights only.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.bitpack import pack_bits, packed_length, unpack_bits
from core.nn.integer_linear import DTYPES, IntegerLinear, dtype_name
from core.nn.replacement import WeightCount
from core.nn.weight_only import MAX_ROWS, WeightOnlyFormat, find_kernel, lay_out


class QuantLinear(IntegerLinear):
    """Weights `scale * (code - zero_point)`, one scale for each output channel or each group of its inputs.

    `group_size` None means one group, the whole row; the last group is shorter where it does not divide the inputs.
    Symmetric weights have the fixed zero point 2**(bits - 1); others store theirs, packed like the codes, or, where
    they are real numbers, in the dtype of the scales. Activations keep their precision.
    """

    zero_points: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        *,
        group_size: int | None = None,
        symmetric: bool = True,
        real_zero_points: bool = False,
        scale_dtype: str = "float32",
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.bits = bits
        self.group_size = group_size
        self.symmetric = symmetric
        self.real_zero_points = real_zero_points
        self.n_groups = -(-in_features // group_size) if group_size else 1
        code_bytes, zero_point_bytes = packed_length(in_features, bits), packed_length(self.n_groups, bits)
        self.register_buffer("codes", torch.zeros(out_features, code_bytes, dtype=torch.uint8))
        self.register_buffer("scales", torch.ones(out_features, self.n_groups, dtype=DTYPES[scale_dtype]))
        zero_points = None if symmetric else torch.zeros(out_features, zero_point_bytes, dtype=torch.uint8)
        if real_zero_points:
            zero_points = torch.zeros(out_features, self.n_groups, dtype=DTYPES[scale_dtype])
        self.register_buffer("zero_points", zero_points)

    @classmethod
    def of(
        cls,
        linear: nn.Linear,
        codes: Tensor,
        scales: Tensor,
        zero_points: Tensor | None,
        *,
        bits: int,
        group_size: int | None,
        real_zero_points: bool = False,
    ) -> Self:
        """The layer that replaces `linear`.

        Codes [out, in] are in 0..2**bits - 1; scales and zero points are [out, n_groups]. Without zero points the
        layer is symmetric; real ones have the dtype of the scales.
        """
        layer = cls(
            linear.in_features,
            linear.out_features,
            bits,
            group_size=group_size,
            symmetric=zero_points is None,
            real_zero_points=real_zero_points,
            scale_dtype=dtype_name(scales.dtype),
            bias=linear.bias is not None,
            dtype=dtype_name(linear.weight.dtype),
        ).to(linear.weight.device)
        layer.codes = pack_bits(codes.to(torch.uint8), bits)
        layer.scales = scales.contiguous()
        if zero_points is not None:
            packed = zero_points.to(scales.dtype) if real_zero_points else pack_bits(zero_points.to(torch.uint8), bits)
            layer.zero_points = packed.contiguous()
        if layer.bias is not None:
            layer.bias.data.copy_(linear.bias.data)
        return layer

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "real_zero_points": self.real_zero_points,
            "scale_dtype": dtype_name(self.scales.dtype),
            "bias": self.bias is not None,
            "dtype": dtype_name(self.dtype),
        }

    def multiply(self, x: Tensor) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and x.requires_grad
        if self._kernel is not None and len(x) <= MAX_ROWS and x.dtype == torch.bfloat16 and not wants_gradient:
            product = self._kernel(x)
            return product if self.bias is None else product + self.bias
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        return F.linear(x, self.weight().to(x.dtype), bias)

    def weight(self) -> Tensor:
        return self._scaled(*self.unpacked())

    def rows(self, index: Tensor) -> Tensor:
        codes, stored = unpack_bits(self.codes[index], self.bits, self.in_features), self.zero_points
        zero_points = self._unpacked_zero_points(None if stored is None else stored[index])
        return self._scaled(codes, self.scales[index], zero_points)

    def unpacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [out, in], scales [out, n_groups], and zero points [out, n_groups] or, if symmetric, [1, 1]."""
        codes = self.codes if self.bits == 8 else unpack_bits(self.codes, self.bits, self.in_features)
        return codes, self.scales, self.unpacked_zero_points()

    def unpacked_zero_points(self) -> Tensor:
        """Zero points [out, n_groups] or, if symmetric, [1, 1]; uint8, or the scales' dtype if they are real."""
        return self._unpacked_zero_points(self.zero_points)

    def zero_codes(self) -> Tensor:
        """The codes uint8 [out, in] of a weight of zeros; where zero points are real numbers, the nearest ones."""
        zero_points, size = self.unpacked_zero_points(), self.group_size or self.in_features
        zero_points = zero_points.round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        if self.zero_points is None:
            return zero_points.expand(self.out_features, self.in_features)
        return zero_points.repeat_interleave(size, dim=1)[:, : self.in_features]

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return find_kernel(self._format(), device, dtype)

    def prepare(self) -> None:
        if find_kernel(self._format(), self.codes.device, torch.bfloat16) is not None:
            self._kernel = lay_out(self._format(), *self.unpacked())

    def count(self) -> WeightCount:
        codes, _, zero_points = self.unpacked()
        return WeightCount(
            weights=self.in_features * self.out_features,
            nonzeros=int(torch.count_nonzero(self._offsets(codes, zero_points).flatten(1)[:, : self.in_features])),
            bits=float(self.bits),
        )

    def _unpacked_zero_points(self, stored: Tensor | None) -> Tensor:
        if stored is None:
            return self.codes.new_full((1, 1), 2 ** (self.bits - 1))
        return stored if self.real_zero_points else unpack_bits(stored, self.bits, self.n_groups)

    def _scaled(self, codes: Tensor, scales: Tensor, zero_points: Tensor) -> Tensor:
        """The weights [rows, in] of rows of codes."""
        grouped = self._offsets(codes, zero_points).mul_(scales.float()[:, :, None])
        return grouped.flatten(1)[:, : self.in_features].contiguous()

    def _offsets(self, codes: Tensor, zero_points: Tensor) -> Tensor:
        """Codes [rows, in] minus zero points, float32 [rows, n_groups, group]."""
        group_size = self.group_size or self.in_features
        padded = F.pad(codes, (0, self.n_groups * group_size - self.in_features))
        return padded.unflatten(1, (self.n_groups, group_size)).float().sub_(zero_points.float()[:, :, None])

    def _format(self) -> WeightOnlyFormat:
        return WeightOnlyFormat(self.in_features, self.out_features, self.bits, self.group_size, self.symmetric)
