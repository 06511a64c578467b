"""Pack codes of 1 to 32 bits into bytes without gaps, and unpack them.

The bit order is little-endian: code 0 begins at the lowest bit of byte 0. So a byte holds two 4-bit codes, the first in
its low half.
"""

import math

import torch
from torch import Tensor


def packed_length(n: int, bits: int) -> int:
    """The number of bytes of `n` codes of `bits` bits."""
    return (n * bits + 7) // 8


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack codes in 0..2**bits - 1, integer [..., n], into uint8 [..., packed_length(n, bits)].

    `bits` is 1 to 32; raises ValueError otherwise.
    """
    n_codes, n_bytes = _period(bits)
    n = codes.shape[-1]
    n_periods = -(-n // n_codes)
    padded = torch.nn.functional.pad(codes, (0, n_periods * n_codes - n))
    slots = padded.unflatten(-1, (n_periods, n_codes))  # [..., n_periods, n_codes]
    packed = torch.zeros(*slots.shape[:-1], n_bytes, dtype=torch.uint8, device=codes.device)
    for slot in range(n_codes):
        byte, shift = divmod(slot * bits, 8)
        word = slots[..., slot].to(_word(bits)) << shift
        for i in range(packed_length(1, shift + bits)):
            packed[..., byte + i] |= ((word >> (8 * i)) & 255).to(torch.uint8)
    return packed.flatten(-2)[..., : packed_length(n, bits)].contiguous()


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """The `n` codes [..., n] that `pack_bits` packed: uint8 up to 8 bits, int32 up to 16, else int64."""
    n_codes, n_bytes = _period(bits)
    n_periods = -(-n // n_codes)
    padded = torch.nn.functional.pad(packed, (0, n_periods * n_bytes - packed.shape[-1]))
    periods = padded.unflatten(-1, (n_periods, n_bytes))  # [..., n_periods, n_bytes]
    dtype = torch.uint8 if bits <= 8 else _word(bits)
    codes = torch.empty(*periods.shape[:-1], n_codes, dtype=dtype, device=packed.device)
    for slot in range(n_codes):
        byte, shift = divmod(slot * bits, 8)
        word = periods[..., byte].to(_word(bits))
        for i in range(1, packed_length(1, shift + bits)):
            word = word | (periods[..., byte + i].to(_word(bits)) << (8 * i))
        codes[..., slot] = ((word >> shift) & ((1 << bits) - 1)).to(dtype)
    return codes.flatten(-2)[..., :n]


def _word(bits: int) -> torch.dtype:
    """The integer type that holds a code shifted by up to 7 bits."""
    return torch.int32 if bits <= 16 else torch.int64


def _period(bits: int) -> tuple[int, int]:
    """The fewest codes that fill whole bytes, and the number of those bytes."""
    if not 1 <= bits <= 32:
        raise ValueError(f"bits must be 1 to 32, not {bits}")
    shared = math.gcd(bits, 8)
    return 8 // shared, bits // shared
