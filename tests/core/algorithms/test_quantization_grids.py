"""Grids that can be reckoned by hand, and what every observer promises."""

import math

import pytest
import torch

from core.algorithms.quantization_grids import (
    MSE_FACTORS,
    OBSERVERS,
    grid_between,
    mean_squared_error,
    min_max,
    percentile,
    quantize_groups,
)

BITS = [2, 3, 4, 5, 6, 7, 8]


def rows(n_rows=5, n=257, seed=0):
    return torch.randn(n_rows, n, generator=torch.Generator().manual_seed(seed)) * 0.3 + 0.05


def test_symmetric_grid_by_hand():
    x = torch.tensor([[-6.0, 3.0, 1.0, 0.0, 2.9, 5.1]])  # 3 bits: scale 6 / 3, codes about 4
    grid = min_max(x, 3, symmetric=True)
    assert grid.scale.tolist() == [[2.0]]
    assert grid.quantize(x).tolist() == [[1, 6, 4, 4, 5, 7]]  # 3 / 2 and 1 / 2 go to the even neighbour
    assert grid.nearest(x).tolist() == [[-6, 4, 0, 0, 2, 6]]


def test_affine_grid_by_hand():
    x = torch.tensor([[-1.0, 0.0, 0.4, 2.0]])  # 2 bits: scale 3 / 3, zero point 1
    grid = min_max(x, 2, symmetric=False)
    assert (grid.scale.item(), grid.zero_point.item()) == (1.0, 1.0)
    assert grid.quantize(x).tolist() == [[0, 1, 1, 3]]


def test_affine_grid_is_widened_to_hold_zero():
    grid = min_max(torch.tensor([[4.0, 6.0]]), 2, symmetric=False)
    assert (grid.scale.item(), grid.zero_point.item()) == (2.0, 0.0)
    grid = min_max(torch.tensor([[-6.0, -4.0]]), 2, symmetric=False)
    assert (grid.scale.item(), grid.zero_point.item()) == (2.0, 3.0)


def test_percentile_by_hand():
    x = torch.arange(-100.0, 101.0)[None]  # 201 values, one apart
    grid = percentile(x, 8, symmetric=False, share=90.0)  # -80 .. 80
    assert grid.scale.item() == pytest.approx(160 / 255)
    assert percentile(x, 8, symmetric=True, share=90.25).scale.item() == pytest.approx(80.5 / 127)


def test_percentile_agrees_with_torch():
    x = rows()
    low, high = (torch.quantile(x, q, dim=1, keepdim=True) for q in (0.003, 0.997))
    expected = grid_between(low, high, 8, False)
    assert torch.allclose(percentile(x, 8, False, share=99.7).scale, expected.scale, rtol=1e-4)


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
class TestEveryObserver:
    def test_zero_stays_zero(self, observer, symmetric, bits, dtype):
        grid = OBSERVERS[observer](rows(), bits, symmetric, dtype)
        assert torch.equal(grid.nearest(torch.zeros(5, 3)), torch.zeros(5, 3))

    def test_codes_fit_their_bits(self, observer, symmetric, bits, dtype):
        grid = OBSERVERS[observer](rows(), bits, symmetric, dtype)
        codes = grid.quantize(100 * rows())
        assert codes.min() == (1 if symmetric else 0)
        assert codes.max() == 2**bits - 1
        assert torch.equal(codes, codes.round())

    def test_rounding_twice_is_rounding_once(self, observer, symmetric, bits, dtype):
        grid = OBSERVERS[observer](rows(), bits, symmetric, dtype)
        once = grid.nearest(rows())
        assert torch.equal(grid.nearest(once), once)

    def test_scales_are_values_of_their_type(self, observer, symmetric, bits, dtype):
        scale = OBSERVERS[observer](rows(), bits, symmetric, dtype).scale
        assert torch.equal(scale.to(dtype).float(), scale)

    @pytest.mark.parametrize("x", [torch.zeros(2, 7), torch.full((2, 7), 0.37), torch.full((2, 7), -5.0)])
    def test_constant_rows_are_kept(self, observer, symmetric, bits, dtype, x):
        grid = OBSERVERS[observer](x, bits, symmetric, dtype)
        assert grid.scale.isfinite().all()
        assert torch.allclose(grid.nearest(x), x, rtol=1e-3)

    def test_nothing_is_worse_than_min_max_to_the_mse_observer(self, observer, symmetric, bits, dtype):
        x = rows(seed=3)
        best = (mean_squared_error(x, bits, symmetric, dtype).nearest(x) - x).square().sum(1)
        other = (OBSERVERS[observer](x, bits, symmetric, dtype).nearest(x) - x).square().sum(1)
        if observer != "percentile":
            assert (best <= other).all()


@pytest.mark.parametrize("bits", BITS)
def test_min_max_errs_by_half_a_step(bits):
    x = rows()
    symmetric = min_max(x, bits, symmetric=True)
    assert ((symmetric.nearest(x) - x).abs() <= symmetric.scale * 0.5001).all()
    affine = min_max(x, bits, symmetric=False)  # its ends move when the zero point is rounded
    assert ((affine.nearest(x) - x).abs() <= affine.scale * 1.0001).all()
    inner = x.clamp(affine.scale - affine.scale * affine.zero_point, affine.scale * (2**bits - 2 - affine.zero_point))
    assert ((affine.nearest(inner) - inner).abs() <= affine.scale * 0.5001).all()


def test_mse_observer_shrinks_the_grid_where_there_are_outliers():
    x = torch.cat([torch.linspace(-1, 1, 100), torch.tensor([3.0])])[None]
    chosen = mean_squared_error(x, 2, symmetric=True)
    factor = chosen.scale.item() / min_max(x, 2, symmetric=True).scale.item()
    assert factor < 0.7
    assert any(math.isclose(factor, candidate, rel_tol=1e-5) for candidate in MSE_FACTORS)


def test_mse_factors_hold_one_itself():
    assert 1.0 in MSE_FACTORS


@pytest.mark.parametrize("group_size", [None, 4, 5, 16])
def test_groups_are_quantized_as_if_each_stood_alone(group_size):
    weight = rows(3, 14)
    quantized = quantize_groups(weight, group_size, lambda part: min_max(part, 4, False))
    for index, columns in enumerate(weight.split(group_size or 14, dim=1)):
        alone = min_max(columns, 4, False)
        begin = index * (group_size or 14)
        assert torch.equal(quantized.scales[:, index : index + 1], alone.scale)
        assert torch.equal(quantized.zero_points[:, index : index + 1], alone.zero_point)
        assert torch.equal(quantized.codes[:, begin : begin + columns.shape[1]], alone.quantize(columns))
