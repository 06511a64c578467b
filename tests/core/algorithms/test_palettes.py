"""Palettes: k-means on the line, weighted, without chance."""

import itertools

import pytest
import torch
from torch import Tensor

from core.algorithms.palettes import SortedValues, find_palettes, nearest_codes


def values(rows: int = 3, n: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, n, generator=generator) ** 3, torch.rand(rows, n, generator=generator) ** 4


def brute_error(x: Tensor, m: Tensor, palettes: Tensor) -> Tensor:
    distances = (x[:, :, None].double() - palettes[:, None]).square().amin(2)
    return (m.double() * distances).sum(1)


def test_a_palette_by_hand():
    x = torch.tensor([[0.0, 1.0, 10.0, 12.0]])
    found = find_palettes(x, torch.ones_like(x), 1, 10)
    assert found.values.tolist() == [[0.5, 11.0]]
    assert found.error.tolist() == [2.5]
    weighted = find_palettes(x, torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 1, 10)
    assert weighted.values.tolist() == [[0.25, 10.0]]


def test_quantiles_are_of_the_weights_of_values():
    x = torch.arange(8.0)[None]
    assert SortedValues(x, torch.ones(1, 8)).quantiles(4).tolist() == [[0.0, 2.0, 4.0, 6.0]]
    assert SortedValues(x, torch.tensor([[0.0] * 6 + [1.0] * 2])).quantiles(2).tolist() == [[6.0, 7.0]]


@pytest.mark.parametrize("n", [2, 5, 16])
def test_steps_and_errors_are_those_of_a_plain_loop(n):
    x, m = values()
    sorted_values = SortedValues(x, m)
    palettes = sorted_values.uniform(n)
    for _ in range(4):
        assert torch.allclose(sorted_values.error(palettes), brute_error(x, m, palettes), rtol=1e-9)
        nearest = (x[:, :, None].double() - palettes[:, None]).abs().argmin(2)
        expected = palettes.clone()
        for row, entry in itertools.product(range(len(x)), range(n)):
            own = nearest[row] == entry
            if own.any():
                expected[row, entry] = (m[row, own].double() * x[row, own]).sum() / m[row, own].double().sum()
        palettes = sorted_values.lloyd(palettes)
        assert torch.allclose(palettes, expected, rtol=1e-9)


def test_every_step_from_the_uniform_grid_makes_the_error_smaller():
    x, m = values()
    for bits in range(1, 9):
        sorted_values = SortedValues(x, m)
        palettes = sorted_values.uniform(2**bits)
        errors = [sorted_values.error(palettes)]
        for _ in range(5):
            palettes = sorted_values.lloyd(palettes)
            errors.append(sorted_values.error(palettes))
        assert all((later <= earlier + 1e-12).all() for earlier, later in itertools.pairwise(errors))
        assert (errors[1] < errors[0]).all()
        assert (find_palettes(x, m, bits, 1).error <= errors[1]).all()


def test_two_values_are_the_best_two():
    x, m = values(rows=1, n=12)
    ascending, order = x[0].sort()
    best = min(
        float(brute_error(x, m, torch.tensor([[mean(ascending[:cut], m[0, order[:cut]]),
                                               mean(ascending[cut:], m[0, order[cut:]])]])))
        for cut in range(1, 12)
    )  # fmt: skip
    assert find_palettes(x, m, 1, 50).error.item() <= 1.5 * best  # a local minimum
    assert find_palettes(x, m, 1, 50).error.item() >= best - 1e-9


def mean(x: Tensor, m: Tensor) -> float:
    return float((x * m).sum() / m.sum())


def test_zero_stays_where_it_is_asked_for():
    x, m = values()
    x = x.abs() + 1
    found = find_palettes(x, m, 2, 20, with_zero=True)
    assert ((found.values == 0).sum(1) == 1).all()
    assert not (find_palettes(x, m, 2, 20).values == 0).any()
    codes = nearest_codes(torch.zeros(3, 1), found.values)
    assert not found.values.gather(1, codes).any()


def test_codes_are_the_nearest_values():
    x, m = values()
    palettes = find_palettes(x, m, 3, 20).values
    chosen = palettes.gather(1, nearest_codes(x, palettes))
    assert torch.allclose((chosen - x).abs(), (x[:, :, None] - palettes[:, None]).abs().amin(2))


def test_rows_without_importance_count_all_alike():
    x, _ = values()
    plain = find_palettes(x, torch.ones_like(x), 3, 20)
    assert torch.equal(find_palettes(x, torch.zeros_like(x), 3, 20).values, plain.values)
