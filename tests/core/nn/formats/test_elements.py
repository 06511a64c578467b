"""Element types round to the nearest value, decide ties as hardware does, and pack without gaps."""

import pytest
import torch

from core.nn.formats.catalogue import FORMATS
from core.nn.formats.elements import (
    BINARY_TYPE,
    E2M1_TYPE,
    E4M3_TYPE,
    E5M2_TYPE,
    NF4_TYPE,
    TERNARY_TYPE,
)

ELEMENTS = {
    "E2M1": E2M1_TYPE,
    "E4M3": E4M3_TYPE,
    "E5M2": E5M2_TYPE,
    "NF4": NF4_TYPE,
    "binary": BINARY_TYPE,
    "ternary": TERNARY_TYPE,
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_what_is_nearest_is_chosen(name):
    element = ELEMENTS[name]
    n = 3 if name == "ternary" else 2 ** int(element.bits)
    values = element.decode(torch.arange(n).to(torch.uint8)).double()
    finite = values[values.isfinite()]
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * element.largest / 2
    found = element.decode(element.encode(x)).double()
    least = (x.double()[:, None] - finite).abs().amin(1)
    assert torch.equal((x.double() - found).abs(), least)


def test_values_of_the_four_bit_float():
    codes = torch.arange(16, dtype=torch.uint8)
    positive = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    assert E2M1_TYPE.decode(codes).tolist() == [*positive, *(-value for value in positive)]


def test_ties_go_to_the_even_code():
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert E2M1_TYPE.encode(ties).tolist() == [0, 2, 2, 4, 4, 6, 6]
    assert E2M1_TYPE.encode(-ties).tolist() == [8, 10, 10, 12, 12, 14, 14]
    just_below, just_above = ties.nextafter(torch.zeros(7)), ties.nextafter(torch.full((7,), 9.0))
    assert E2M1_TYPE.encode(just_below).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert E2M1_TYPE.encode(just_above).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_ties_of_eight_bit_floats_go_to_the_even_mantissa():
    assert E4M3_TYPE.decode(E4M3_TYPE.encode(torch.tensor([17.0, 19.0, 432.0]))).tolist() == [16.0, 20.0, 448.0]
    assert E5M2_TYPE.decode(E5M2_TYPE.encode(torch.tensor([9.0, 11.0]))).tolist() == [8.0, 12.0]


@pytest.mark.parametrize("name", ["E2M1", "E4M3", "E5M2", "NF4"])
def test_what_is_too_large_becomes_the_largest_value(name):
    element = ELEMENTS[name]
    largest = element.largest
    assert element.decode(element.encode(torch.tensor([1.5 * largest, -1e30]))).tolist() == [largest, -largest]


@pytest.mark.parametrize("name", [name for name in ELEMENTS if name != "binary"])
def test_zero_stays_zero(name):
    assert ELEMENTS[name].decode(ELEMENTS[name].encode(torch.zeros(3))).tolist() == [0.0, 0.0, 0.0]


def test_only_binary_has_no_zero():
    assert [name for name, known in FORMATS.items() if not known.has_zero] == ["binary"]


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("n", [1, 5, 7, 40, 64])
def test_packing_loses_nothing_and_leaves_no_gaps(name, n):
    element = ELEMENTS[name]
    codes = element.encode(torch.randn(3, n, generator=torch.Generator().manual_seed(n)) * element.largest / 2)
    packed = element.pack(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, element.packed_length(n))
    assert packed.shape[1] - 1 < n * element.bits / 8 <= packed.shape[1]
    assert torch.equal(element.unpack(packed, n), codes)


def test_a_byte_holds_five_ternary_values():
    codes = TERNARY_TYPE.encode(torch.tensor([[-1.0, 0.0, 1.0, 1.0, -1.0, 1.0]]))
    assert TERNARY_TYPE.pack(codes).tolist() == [[0 + 1 * 3 + 2 * 9 + 2 * 27 + 0 * 81, 2]]


def test_a_byte_holds_two_four_bit_values_the_first_in_its_low_half():
    assert E2M1_TYPE.pack(E2M1_TYPE.encode(torch.tensor([1.0, -6.0]))).tolist() == [2 + 16 * 15]
