"""Grids whose errors are weighted by the importance of each value."""

from functools import partial

import pytest
import torch
from torch import Tensor

from core.algorithms.quantization_grids import Grid, importance_weighted, mean_squared_error, min_max, quantize_groups

EXACT = torch.float64


def rows(n_rows: int = 6, n: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_rows, n, generator=generator) + 0.3 * torch.randn(n_rows, 1, generator=generator)


def importances(n: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)).mul(1.5).exp()


def error(grid: Grid, x: Tensor, importance: Tensor | float = 1.0) -> Tensor:
    return ((grid.nearest(x) - x).double().square() * importance).sum(1)


def test_a_scale_by_hand():
    # codes -1, 0 and 1 times s, errors weighted 1, 2 and 3: s = (1 * 1 + 3 * 0.8) / (1 + 3)
    x, importance = torch.tensor([[-1.0, 0.1, 0.8]]), torch.tensor([1.0, 2.0, 3.0])
    grid = importance_weighted(x, 2, True, importance=importance)
    assert grid.scale.item() == pytest.approx(0.85)
    assert error(grid, x, importance).item() == pytest.approx(0.15**2 + 2 * 0.1**2 + 3 * 0.05**2)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_never_worse_than_min_max_whatever_the_importances(symmetric, bits, dtype):
    x = rows()
    for importance in (torch.ones(64), importances(), importances() * (torch.arange(64) % 3 == 0)):
        found = error(importance_weighted(x, bits, symmetric, dtype, importance=importance), x, importance)
        plain = error(min_max(x, bits, symmetric, dtype), x, importance)
        assert (found <= plain * (1 + 1e-6)).all()
        assert found.sum() < 0.99 * plain.sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_with_equal_importances_it_is_as_good_as_the_least_squared_error(symmetric, bits):
    x = rows(64)
    importance = torch.full((64,), 5.0)
    found = importance_weighted(x, bits, symmetric, importance=importance)
    assert error(found, x).sum() < 1.01 * error(mean_squared_error(x, bits, symmetric), x).sum()
    alike = float(error(importance_weighted(x, bits, symmetric), x).sum())
    assert alike == pytest.approx(float(error(found, x).sum()), rel=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_comes_near_to_the_best_of_all_scales(bits):
    x, importance = rows(), importances()
    found = error(importance_weighted(x, bits, True, importance=importance), x, importance)
    scales = torch.linspace(0.02, 2.5, 3000) * x.abs().amax(1, keepdim=True) / 2 ** (bits - 1)
    grids = (Grid(scale[:, None], torch.full_like(scale[:, None], 2 ** (bits - 1)), bits) for scale in scales.T)
    best = torch.stack([error(grid, x, importance) for grid in grids]).amin(0)
    assert (found >= best * 0.999).all()
    assert found.sum() < 1.03 * best.sum()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_an_affine_grid_comes_near_to_the_best_of_all(bits):
    x, importance = rows(3), importances()
    found = error(importance_weighted(x, bits, False, importance=importance), x, importance)
    scales = torch.linspace(0.02, 1.5, 400) * (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) / (2**bits - 1)
    best = torch.full((3,), torch.inf, dtype=EXACT)
    for zero_point in range(2**bits):
        grids = (Grid(s[:, None], torch.full_like(s[:, None], zero_point), bits) for s in scales.T)
        best = torch.minimum(best, torch.stack([error(grid, x, importance) for grid in grids]).amin(0))
    assert found.sum() < 1.1 * best.sum()


def test_values_without_importance_do_not_count():
    x, importance = rows(), importances()
    x[:, 10] = 50.0
    importance[10] = 0
    found = importance_weighted(x, 3, True, importance=importance)
    without = torch.arange(64) != 10
    alone = importance_weighted(x[:, without], 3, True, importance=importance[without])
    assert error(found, x, importance).sum() < 2 * error(alone, x[:, without], importance[without]).sum()
    assert error(found, x, importance).sum() < 0.1 * error(min_max(x, 3, True), x, importance).sum()
    nothing = importance_weighted(x, 3, False, importance=torch.zeros(64))
    assert torch.equal(nothing.scale, min_max(x, 3, False).scale)


@pytest.mark.parametrize("group_size", [None, 16, 24])
def test_groups_are_weighed_by_their_own_columns(group_size):
    x, importance = rows(), importances()

    def fit(values: Tensor, weights: Tensor) -> Grid:
        return importance_weighted(values, 3, False, importance=weights)

    found = quantize_groups(x, fit, group_size, importance)
    parts = zip(x.split(group_size or 64, dim=1), importance.split(group_size or 64), strict=True)
    grids = [fit(values, weights) for values, weights in parts]
    assert torch.equal(found.scales, torch.cat([grid.scale for grid in grids], dim=1))
    assert torch.equal(found.zero_points, torch.cat([grid.zero_point for grid in grids], dim=1))
    plain = quantize_groups(x, partial(min_max, bits=3, symmetric=False), group_size)
    assert not torch.equal(found.codes, plain.codes)
