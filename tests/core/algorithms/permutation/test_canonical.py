"""Canonical permutations: how many, each class once, and in the reference's order."""

from itertools import permutations

import pytest

from core.algorithms.permutation.canonical import canonical_permutations, count_canonical


@pytest.mark.parametrize(("n_columns", "m", "count"), [(8, 4, 35), (12, 4, 5_775), (6, 2, 15), (16, 8, 6_435)])
def test_there_are_as_many_as_counted(n_columns, m, count):
    found = canonical_permutations(n_columns, m)
    assert found.shape == (count, n_columns)
    assert count_canonical(n_columns, m) == count
    assert found.sort(dim=1).values.unique(dim=0).tolist() == [list(range(n_columns))]


@pytest.mark.slow
def test_sixteen_columns_have_as_many_as_counted():
    assert len(canonical_permutations(16, 4)) == count_canonical(16, 4) == 2_627_625


@pytest.mark.parametrize(("n_columns", "m"), [(4, 2), (6, 2), (6, 3), (8, 4)])
def test_every_permutation_belongs_to_exactly_one_of_them(n_columns, m):
    def stripes(order):
        return frozenset(frozenset(order[s : s + m]) for s in range(0, n_columns, m))

    classes = {stripes(order) for order in permutations(range(n_columns))}
    found = [stripes(order) for order in canonical_permutations(n_columns, m).tolist()]
    assert len(found) == len(classes)
    assert set(found) == classes


def test_they_come_in_lexicographic_order_from_the_identity_on():
    found = canonical_permutations(12, 4).tolist()
    assert found[0] == list(range(12))
    assert found == sorted(found)
    for order in found[::97]:
        assert [order[0], order[4], order[8]] == sorted([order[0], order[4], order[8]])
