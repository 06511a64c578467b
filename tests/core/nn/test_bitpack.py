"""Bit packing: hand-computed bytes, and every width and length back again."""

import pytest
import torch

from core.nn.bitpack import pack_bits, packed_length, unpack_bits


def test_four_bit_codes_lie_two_to_a_byte_low_half_first():
    assert pack_bits(torch.tensor([1, 2, 15]), 4).tolist() == [0x21, 0x0F]


def test_three_bit_codes_cross_bytes():
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    word = sum(code << (3 * i) for i, code in enumerate(codes.tolist()))
    assert pack_bits(codes, 3).tolist() == list(word.to_bytes(3, "little"))


@pytest.mark.parametrize("bits", [*range(1, 18), 24, 25, 30, 32])
@pytest.mark.parametrize("n", [1, 7, 8, 33])
def test_codes_come_back(bits, n):
    generator = torch.Generator().manual_seed(bits * 100 + n)
    codes = torch.randint(0, 2**bits, (3, 2, n), generator=generator)
    codes[..., 0] = 2**bits - 1
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, 2, packed_length(n, bits))
    assert torch.equal(unpack_bits(packed, bits, n).long(), codes)


@pytest.mark.parametrize("bits", [0, 33])
def test_other_widths_are_refused(bits):
    with pytest.raises(ValueError, match="1 to 32"):
        pack_bits(torch.zeros(4, dtype=torch.long), bits)


def test_nothing_packs_to_nothing():
    packed = pack_bits(torch.zeros(2, 0, dtype=torch.long), 5)
    assert packed.shape == (2, 0)
    assert unpack_bits(packed, 5, 0).shape == (2, 0)
