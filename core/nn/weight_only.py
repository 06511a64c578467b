"""torch's kernels for packed weights and bfloat16 activations, and the layouts that they need.

For a few rows (decoding, single examples) they are faster than unpacking the weight. Their time grows with the number
of rows, so inputs of more than MAX_ROWS rows use the unpacked weight. In float32 the kernels are reference loops,
slower than unpacking, and are not used. The 4-bit kernels take group scales and the offset of an affine zero point in
bfloat16: with them a pruned weight is zero only up to that rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_ROWS = 16
INT4_GROUP_SIZES = (32, 64, 128, 256)
_INNER_K_TILES = 8  # how the CUDA kernel tiles the inputs


@dataclass(frozen=True)
class WeightOnlyFormat:
    """The properties of a weight that decide which kernel supports it."""

    in_features: int
    out_features: int
    bits: int
    group_size: int | None
    symmetric: bool


def find_kernel(format: WeightOnlyFormat, device: torch.device, dtype: torch.dtype) -> str | None:
    """The name of the kernel for this format, device and dtype of activations; None where weights are unpacked."""
    if dtype != torch.bfloat16:
        return None
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        return _find_cpu_kernel(format)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) and _fits_tinygemm(format):
        return f"int4 tinygemm to {MAX_ROWS} rows, else unpacked"
    return None


def lay_out(format: WeightOnlyFormat, codes: Tensor, scales: Tensor, zero_points: Tensor) -> Callable[[Tensor], Tensor]:
    """A function x [rows, in] bfloat16 -> [rows, out], with the weights laid out for the kernel of `find_kernel`."""
    if format.bits == 8:
        return _int8(codes, scales)
    scales_and_zeros = _tinygemm_scales(scales, zero_points)
    return (_int4_cuda if codes.is_cuda else _int4_cpu)(format, codes, scales_and_zeros)


def _find_cpu_kernel(format: WeightOnlyFormat) -> str | None:
    if format.bits == 8 and format.symmetric and format.group_size is None:
        return f"int8 weight-only to {MAX_ROWS} rows, else unpacked"
    if format.bits == 4 and _groups_fit(format) and format.out_features % 16 == 0:
        return f"int4 weight-only to {MAX_ROWS} rows, else unpacked"
    return None


def _groups_fit(format: WeightOnlyFormat) -> bool:
    return format.group_size in INT4_GROUP_SIZES and format.in_features % format.group_size == 0


def _fits_tinygemm(format: WeightOnlyFormat) -> bool:
    return format.bits == 4 and _groups_fit(format) and format.in_features % 1024 == 0 and format.out_features % 8 == 0


def _tinygemm_scales(scales: Tensor, zero_points: Tensor) -> Tensor:
    """[n_groups, out, 2]: the kernels compute (code - 8) * scale + zero."""
    zeros = (8 - zero_points.float()) * scales.float()
    return torch.stack([scales.float(), zeros], dim=-1).transpose(0, 1).contiguous().bfloat16()


def _int8(codes: Tensor, scales: Tensor) -> Callable[[Tensor], Tensor]:
    signed = (codes.to(torch.int16) - 128).to(torch.int8).contiguous()  # [out, in]
    row_scales = scales[:, 0].bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x.contiguous(), signed, row_scales)


def _int4_cpu(format: WeightOnlyFormat, codes: Tensor, scales_and_zeros: Tensor) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    group_size = format.group_size
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    return lambda x: multiply(x.contiguous(), packed, group_size, scales_and_zeros)


def _int4_cuda(format: WeightOnlyFormat, codes: Tensor, scales_and_zeros: Tensor) -> Callable[[Tensor], Tensor]:
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)  # the first of two in the high half
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, _INNER_K_TILES)
    group_size = format.group_size
    return lambda x: torch.ops.aten._weight_int4pack_mm(x.contiguous(), packed, group_size, scales_and_zeros)
