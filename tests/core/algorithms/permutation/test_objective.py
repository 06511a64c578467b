"""What is kept, by hand and by sorting, and what efficacy means at its ends."""

import pytest
import torch

from core.algorithms.permutation import efficacy, kept_sum, row_wise_sum


def test_two_of_four_by_hand():
    magnitude = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [9.0, 0.0, 0.0, 9.0, 1.0, 0.0, 0.0, 0.0]])
    assert kept_sum(magnitude, 2, 4) == (3 + 4) + (7 + 8) + (9 + 9) + 1
    assert row_wise_sum(magnitude, 2, 4) == (5 + 6 + 7 + 8) + (9 + 9 + 1 + 0)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (1, 4), (4, 8), (16, 32)])
def test_it_is_what_sorting_every_group_keeps(n, m):
    magnitude = torch.rand(5, 3 * m, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    expected = magnitude.view(5, 3, m).sort(dim=2, descending=True).values[..., :n].sum()
    assert kept_sum(magnitude, n, m) == pytest.approx(float(expected), rel=1e-14)
    assert row_wise_sum(magnitude, n, m) >= kept_sum(magnitude, n, m)


def test_efficacy_is_0_in_the_default_order_100_at_the_bound_and_where_they_are_equal():
    assert efficacy(2.0, 2.0, 6.0) == 0
    assert efficacy(2.0, 5.0, 6.0) == 75
    assert efficacy(2.0, 6.0, 6.0) == 100
    assert efficacy(6.0, 6.0, 6.0) == 100
