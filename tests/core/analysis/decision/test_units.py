"""Amounts as people write them."""

import pytest

from core.analysis.decision.units import BYTES, COUNTS, MILLISECONDS, Amount, read, scaled
from core.errors import SpecError


@pytest.mark.parametrize(
    ("written", "units", "value"),
    [
        ("1 MB", BYTES, 1e6),
        ("1.5kB", BYTES, 1500),
        ("2 MiB", BYTES, 2_097_152),
        ("3e2 B", BYTES, 300),
        ("2 ms", MILLISECONDS, 2),
        ("250 µs", MILLISECONDS, 0.25),
        ("0.5 s", MILLISECONDS, 500),
        ("12 M", COUNTS, 12e6),
        (7, COUNTS, 7),
    ],
)
def test_amounts_are_in_the_unit_of_the_store(written, units, value):
    assert scaled(written, units) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("written", "units", "said"),
    [
        ("1 mb", BYTES, "unknown unit 'mb'. Write the number with one of B, kB, MB"),
        ("1 Mbit", BYTES, "unknown unit 'Mbit'"),
        ("1,5 MB", BYTES, "unknown unit ',5 MB'"),
        (1_000_000, BYTES, "has no unit"),
        ("2", MILLISECONDS, "has no unit. Write the number with one of ns, us, µs, ms, s."),
        ("2 minutes", MILLISECONDS, "unknown unit 'minutes'"),
        ("0 MB", BYTES, "must be above zero"),
        ("-1 MB", BYTES, "must be above zero"),
        ("9e307 GB", BYTES, "must be above zero and finite"),
        ("9e999 MB", BYTES, "is not a finite number"),
        ("9" * 5000 + " MB", BYTES, "is not a finite number"),
        (10**400, COUNTS, "is not a finite number"),
        ("MB", BYTES, "is not a quantity with a unit"),
        ("", BYTES, "is not a quantity with a unit"),
        (True, COUNTS, "is not a quantity with a unit"),
        (["1 MB"], BYTES, "is not a quantity with a unit"),
        ("1 MB" + "x" * 100, BYTES, "is not a quantity with a unit"),
        ("١ MB", BYTES, "is not a quantity with a unit"),  # a digit, and none that people here would read
        ('1 "\x1b[31m"', BYTES, r"'\"\x1b[31m\"'"),
    ],
)
def test_what_is_no_amount_is_refused_with_the_remedy(written, units, said):
    with pytest.raises(SpecError) as refused:
        scaled(written, units)
    assert said.replace(r"\"", '"') in str(refused.value)


def test_a_plain_number_has_no_unit_yet():
    assert (read("95 %"), read(95)) == (Amount(95.0, "%"), Amount(95.0))
