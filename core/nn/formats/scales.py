"""How a format stores the scales of its blocks.

Papers: https://arxiv.org/abs/2310.10537 (E8M0), https://arxiv.org/abs/2305.14314 (double quantization). NVFP4's scales:
https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/BlockScaling.html. Double quantization is that of
bitsandbytes: scales less their mean, in blocks of 256, as 8-bit codes of a "dynamic" type.
"""

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.formats.elements import E2M1_TYPE, E4M3_TYPE

Stored = dict[str, Tensor]  # the buffers of a layer, by name; "scales" among them
_BIAS = 127  # of an E8M0 exponent
_SCALE_BLOCK = 256  # scales that share a scale in double quantization


class FloatScales:
    """Scales as they are, in a floating-point dtype."""

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Stored:
        """Buffers for scales of this shape."""
        return {"scales": torch.ones(shape, dtype=dtype)}

    def round(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        """The scales [rows, n], float32, as they can be stored: codes are chosen for these.

        `largest` is the largest magnitude of the whole weight, a scalar; `dtype` is for scales that are stored as they
        are.
        """
        return scales.to(dtype).float()

    def store(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Stored:
        """The buffers for rounded scales [rows, n]."""
        return {"scales": scales.to(dtype)}

    def restore(self, stored: Mapping[str, Tensor]) -> Tensor:
        """The scales [rows, n] as float32."""
        return stored["scales"].float()


class PowerOfTwoScales(FloatScales):
    """Powers of two as the byte E8M0, the exponent plus 127."""

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Stored:
        return {"scales": torch.full(shape, _BIAS, dtype=torch.uint8)}

    def round(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        return self.restore(self.store(scales, largest, dtype))

    def store(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Stored:
        exponents = torch.frexp(scales).exponent - 1  # rounds down
        return {"scales": (exponents + _BIAS).where(scales > 0, 0).clamp(0, 254).to(torch.uint8)}

    def restore(self, stored: Mapping[str, Tensor]) -> Tensor:
        exponents = stored["scales"].int()
        return (exponents << 23).where(exponents > 0, 1 << 22).view(torch.float32)  # 2**-127 is subnormal


class TwoLevelScales(FloatScales):
    """A scale of the tensor in float32, and those of its blocks relative to it in E4M3."""

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Stored:
        return {"scales": torch.zeros(shape, dtype=torch.uint8), "tensor_scale": torch.ones(1)}

    def round(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        return self.restore(self.store(scales, largest, dtype))

    def store(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Stored:
        tensor_scale = largest.float().reshape(1) / (E2M1_TYPE.largest * E4M3_TYPE.largest)
        tensor_scale = tensor_scale.where(tensor_scale > 0, 1.0)
        return {"scales": E4M3_TYPE.encode(scales / tensor_scale), "tensor_scale": tensor_scale}

    def restore(self, stored: Mapping[str, Tensor]) -> Tensor:
        return E4M3_TYPE.decode(stored["scales"]) * stored["tensor_scale"]


class DoubleQuantizedScales(FloatScales):
    """8-bit codes of the scales less their mean, with a scale for every 256 of them. Codes are chosen before that."""

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Stored:
        n_blocks = math.ceil(math.prod(shape) / _SCALE_BLOCK)
        codes = torch.zeros(shape, dtype=torch.uint8)
        return {"scales": codes, "scale_scales": torch.ones(n_blocks), "scale_mean": torch.zeros(1)}

    def round(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        return scales

    def store(self, scales: Tensor, largest: Tensor, dtype: torch.dtype) -> Stored:
        mean = scales.mean().reshape(1)
        blocks = _in_blocks(scales - mean)
        scale_scales = blocks.abs().amax(1)
        levels = torch.tensor(_dynamic_levels(), device=scales.device)
        scaled = blocks / scale_scales.where(scale_scales > 0, 1.0)[:, None]
        codes = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8)
        codes = codes.flatten()[: scales.numel()].view(scales.shape)
        return {"scales": codes, "scale_scales": scale_scales, "scale_mean": mean}

    def restore(self, stored: Mapping[str, Tensor]) -> Tensor:
        codes = stored["scales"]
        levels = torch.tensor(_dynamic_levels(), device=codes.device)
        blocks = _in_blocks(levels[codes.int()]) * stored["scale_scales"][:, None]
        return blocks.flatten()[: codes.numel()].view(codes.shape) + stored["scale_mean"]


def _in_blocks(scales: Tensor) -> Tensor:
    """Scales [rows, n] as [n_blocks, 256], row by row, with zeros at the end."""
    flat = scales.flatten()
    return F.pad(flat, (0, -len(flat) % _SCALE_BLOCK)).view(-1, _SCALE_BLOCK)


@cache
def _dynamic_levels() -> tuple[float, ...]:
    """The 256 values of bitsandbytes' signed dynamic type: seven decades, each with twice the values of the one below.

    The values of a decade are the middles of equal parts from 0.1 to 1 times its power of ten.
    """
    levels = [0.0, 1.0]
    for i in range(7):
        ends = torch.linspace(0.1, 1, 2**i + 1)
        middles = (10.0 ** (i - 6) * ((ends[:-1] + ends[1:]) / 2)).tolist()
        levels += [*middles, *(-middle for middle in middles)]
    return tuple(sorted(levels))
