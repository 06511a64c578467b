import numpy as np
import pytest

from core.complexity.fit import exponent

LENGTHS = [256, 512, 1024, 2048, 4096]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_pure_power_is_found_exactly(power):
    found = exponent(LENGTHS, [3e-4 * length**power for length in LENGTHS])
    assert found.value == pytest.approx(power, abs=1e-9)
    assert found.high - found.low < 1e-6
    assert (found.shortest, found.longest) == (512, 4096)


def test_slope_and_interval_by_hand():
    found = exponent([1, 2, 4], [1.0, 2.0, 8.0])  # logarithms to base 2: 0, 1, 3 at 0, 1, 2
    assert found.value == pytest.approx(1.5)
    error = (((-1 / 6) ** 2 + (1 / 3) ** 2 + (1 / 6) ** 2) / 1 / 2) ** 0.5
    assert found.high - found.value == pytest.approx(12.7062 * error, rel=1e-4)  # Student's 97.5 % with 1 degree
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_constant_costs_at_short_lengths_are_left_out():
    costs = [1000.0, *[length * 1e-3 for length in LENGTHS[1:]]]
    assert exponent(LENGTHS, costs).value == pytest.approx(1)


def test_interval_covers_the_true_exponent_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        noise = np.exp(random.normal(0, 0.05, len(LENGTHS)))
        found = exponent(LENGTHS, (np.array(LENGTHS) ** 1.3 * noise).tolist())
        covered += found.low <= 1.3 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_sum_of_two_powers_lies_between_them_with_a_wide_interval():
    bent = exponent(LENGTHS, [1e3 * length + length**2 for length in LENGTHS])
    straight = exponent(LENGTHS, [length**1.5 for length in LENGTHS])
    assert 1 < bent.value < 2 and bent.high - bent.low > 0.3 > straight.high - straight.low


def test_lengths_that_are_not_taken_are_passed_over():
    assert exponent(LENGTHS, [None, None, 1.0, 2.0, 4.0]).value == pytest.approx(1)
    assert exponent(LENGTHS, [None, None, None, 2.0, 4.0]) is None
    assert exponent(LENGTHS, [0.0] * 5) is None


def test_order_does_not_matter():
    assert exponent([4, 1, 2], [16.0, 1.0, 4.0]).value == pytest.approx(2)
