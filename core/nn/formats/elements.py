"""Element types: the values that a code can mean before it is scaled, rounding to the nearest, and packing into bytes.

Papers: https://arxiv.org/abs/2209.05433 (FP8), https://arxiv.org/abs/2310.10537 (E2M1 and microscaling),
https://arxiv.org/abs/2305.14314 (NF4), https://arxiv.org/abs/1605.04711 (ternary), https://arxiv.org/abs/1603.05279
(binary).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.bitpack import pack_bits, packed_length, unpack_bits

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NF4 = (  # quantiles of the normal distribution, with an exact zero (QLoRA, appendix E)
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_TERNARY_IN_A_BYTE = 5  # 3**5 = 243


@dataclass(frozen=True)
class ElementType:
    """Codes of `bits` bits. Subclasses say what they mean; values are float32, codes uint8."""

    bits: float  # that a stored code takes
    largest: float  # the largest magnitude of a value

    def encode(self, x: Tensor) -> Tensor:
        """The codes of the values nearest to x, shaped like x; what is too large becomes the largest value."""
        raise NotImplementedError(type(self).__name__)

    def decode(self, codes: Tensor) -> Tensor:
        """The values of codes."""
        raise NotImplementedError(type(self).__name__)

    def packed_length(self, n: int) -> int:
        """The number of bytes of `n` codes."""
        return packed_length(n, int(self.bits))

    def pack(self, codes: Tensor) -> Tensor:
        """Pack codes [..., n] into bytes [..., packed_length(n)], the first code in the lowest bits."""
        return codes.contiguous() if self.bits == 8 else pack_bits(codes, int(self.bits))

    def unpack(self, packed: Tensor, n: int) -> Tensor:
        """The codes [..., n] that `pack` packed."""
        return packed if self.bits == 8 else unpack_bits(packed, int(self.bits), n)


@dataclass(frozen=True)
class Float8(ElementType):
    """An 8-bit floating-point type of torch; a code is its byte."""

    dtype: torch.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Rounds half to even, as torch's cast does."""
        return x.clamp(-self.largest, self.largest).to(self.dtype).view(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        return codes.view(self.dtype).float()


class E2M1(ElementType):
    """The 4-bit floating-point type of MXFP4 and NVFP4: code 0..7 for `_E2M1`, plus 8 for negative values."""

    def encode(self, x: Tensor) -> Tensor:
        """A tie between two values goes to the one with the even code, which ends in a zero bit."""
        middles = [(low + high) / 2 for low, high in pairwise(_E2M1)]
        up = torch.tensor(middles, device=x.device)
        up[1::2] = up[1::2].nextafter(up.new_zeros(()))  # here the even code is the upper one
        codes = torch.bucketize(x.abs().contiguous(), up, out_int32=True)
        return (codes + 8 * (x < 0)).to(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        return _values_of(codes, (*_E2M1, *(-value for value in _E2M1)))


@dataclass(frozen=True)
class Levels(ElementType):
    """Codes that number a list of values in ascending order."""

    values: tuple[float, ...]

    def encode(self, x: Tensor) -> Tensor:
        levels = torch.tensor(self.values, device=x.device)
        return torch.bucketize(x.contiguous(), (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        return _values_of(codes, self.values)


class Ternary(Levels):
    """-1, 0 and 1. A byte holds five codes, the first as its lowest digit to the base 3."""

    def packed_length(self, n: int) -> int:
        return math.ceil(n / _TERNARY_IN_A_BYTE)

    def pack(self, codes: Tensor) -> Tensor:
        n = codes.shape[-1]
        padded = F.pad(codes, (0, _TERNARY_IN_A_BYTE * self.packed_length(n) - n))
        digits = padded.unflatten(-1, (-1, _TERNARY_IN_A_BYTE))
        packed = torch.zeros_like(digits[..., 0])
        for i in range(_TERNARY_IN_A_BYTE):
            packed += digits[..., i] * 3**i
        return packed

    def unpack(self, packed: Tensor, n: int) -> Tensor:
        digits = [packed // 3**i % 3 for i in range(_TERNARY_IN_A_BYTE)]
        return torch.stack(digits, dim=-1).flatten(-2)[..., :n]


E4M3_TYPE = Float8(8, 448.0, torch.float8_e4m3fn)
E5M2_TYPE = Float8(8, 57344.0, torch.float8_e5m2)
E2M1_TYPE = E2M1(4, 6.0)
NF4_TYPE = Levels(4, 1.0, _NF4)
TERNARY_TYPE = Ternary(8 / _TERNARY_IN_A_BYTE, 1.0, (-1.0, 0.0, 1.0))
BINARY_TYPE = Levels(1, 1.0, (-1.0, 1.0))


def _values_of(codes: Tensor, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=codes.device)[codes.int()]
