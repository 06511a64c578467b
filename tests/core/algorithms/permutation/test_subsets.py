"""Largest values of subsets and of unions, against sorting."""

from itertools import product

import pytest
import torch

from core.algorithms.permutation import unions
from core.algorithms.permutation.subsets import largest_of_subsets, largest_without, subsets
from core.algorithms.permutation.unions import sums_of_maxima, union_sums


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (1, 5), (4, 6)])
def test_largest_of_every_subset_are_those_of_sorting(n, m):
    stripes = torch.rand(3, m, 7, generator=torch.Generator().manual_seed(0))
    for size, parts in enumerate(largest_of_subsets(stripes, m - 1, n), start=1):
        assert len(parts) == min(n, size)
        for i, subset in enumerate(subsets(m, size)):
            expected = stripes[:, list(subset)].sort(dim=1, descending=True).values  # [G, size, K]
            for rank, part in enumerate(parts):
                assert torch.equal(part[i], expected[:, rank])


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (16, 32)])
def test_largest_without_each_column_are_those_of_sorting_the_others(n, m):
    stripes = torch.randint(0, 9, (3, m, 7), generator=torch.Generator().manual_seed(0)).float()  # with ties
    found = torch.stack(largest_without(stripes, n))  # [n, m, G, K]
    for i in range(m):
        others = torch.cat([stripes[:, :i], stripes[:, i + 1 :]], dim=1)
        assert torch.equal(found[:, i].transpose(0, 1), others.sort(dim=1, descending=True).values[:, :n])


def test_the_subsets_of_the_first_columns_come_first():
    assert subsets(4, 2) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert subsets(6, 3)[:10] == subsets(5, 3)


@pytest.mark.parametrize("room", [1, 40, 10_000])
def test_sums_of_maxima_are_the_same_in_buffers_of_any_size(room, monkeypatch):
    monkeypatch.setattr(unions, "IN_CACHE", room)
    left, right = torch.rand(5, 8, dtype=torch.float64), torch.rand(7, 8, dtype=torch.float64)
    expected = torch.maximum(left[:, None], right).sum(dim=2)
    assert torch.allclose(sums_of_maxima(left, right), expected, atol=1e-14)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (3, 4), (2, 5), (5, 6)])
def test_unions_keep_what_sorting_them_keeps(n, m):
    generator = torch.Generator().manual_seed(n)
    left, right = (torch.rand(count, m, 6, generator=generator, dtype=torch.float64) for count in (2, 3))
    of_left, of_right = largest_of_subsets(left, m - 1, n), largest_of_subsets(right, m - 1, n)
    for k in range(1, m):
        found = union_sums(of_left[k - 1], of_right[m - k - 1], n)
        for row, (a, b) in enumerate(product(subsets(m, k), subsets(m, m - k))):
            for i, j in product(range(2), range(3)):
                union = torch.cat([left[i, list(a)], right[j, list(b)]])  # [m, K]
                expected = union.sort(dim=0, descending=True).values[:n].sum()
                assert float(found[row, i, j]) == pytest.approx(float(expected), rel=1e-12)
