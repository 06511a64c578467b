"""Grids by hand and against torch's own, and what every range estimator promises."""

import math

import pytest
import torch
from torch.ao.quantization.observer import PerChannelMinMaxObserver

from core.algorithms.quantization_grids import (
    MSE_FACTORS,
    RANGE_ESTIMATORS,
    Grid,
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
    x = torch.tensor([[-7.0, 3.0, 1.0, 0.0, 2.9, 6.1, 7.0]])  # 3 bits: scale 7 / 3.5, codes about 4
    grid = min_max(x, 3, symmetric=True)
    assert grid.scale.tolist() == [[2.0]]
    assert grid.quantize(x).tolist() == [[0, 6, 4, 4, 5, 7, 7]]  # 3 / 2 and 1 / 2 go to the even neighbour
    assert grid.nearest(x).tolist() == [[-8, 4, 0, 0, 2, 6, 6]]


def with_one_level_less(x, bits):
    """The grid of 2^bits - 1 levels, whose ends are the ends of the range: `max / (2^(bits-1) - 1)`."""
    scale = x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return Grid(scale, torch.full_like(scale, 2 ** (bits - 1)), bits)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_min_max_is_the_grid_of_torch(bits, symmetric):
    x = rows()
    signed = 2 ** (bits - 1) if symmetric else 0
    observer = PerChannelMinMaxObserver(
        ch_axis=0,
        dtype=torch.qint8 if symmetric else torch.quint8,
        qscheme=torch.per_channel_symmetric if symmetric else torch.per_channel_affine,
        quant_min=-signed,
        quant_max=2**bits - 1 - signed,
    )
    observer(x)
    scales, zero_points = observer.calculate_qparams()
    grid = min_max(x, bits, symmetric)
    assert torch.allclose(grid.scale[:, 0], scales)
    assert torch.equal(grid.zero_point[:, 0] - signed, zero_points)
    expected = torch.fake_quantize_per_channel_affine(x, scales, zero_points.int(), 0, -signed, 2**bits - 1 - signed)
    assert torch.isclose(grid.nearest(x), expected, atol=1e-6).float().mean() > 0.999  # ties may go the other way


@pytest.mark.parametrize("bits", BITS)
def test_all_levels_lower_the_squared_error_of_a_symmetric_grid_by_the_square_of_the_step(bits):
    x = torch.linspace(-1, 1, 20_001)[None]  # the error is uniform in half a step
    error = (min_max(x, bits, symmetric=True).nearest(x) - x).square().mean().item()
    step = 1 / (2 ** (bits - 1) - 0.5)
    assert error == pytest.approx(step**2 / 12, rel=0.01)
    narrow = (with_one_level_less(x, bits).nearest(x) - x).square().mean().item()
    assert narrow / error == pytest.approx(((2 ** (bits - 1) - 0.5) / (2 ** (bits - 1) - 1)) ** 2, rel=0.02)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", range(3))
def test_mse_is_never_worse_than_the_grid_of_one_level_less(bits, seed):
    x = rows(seed=seed)
    x[0, 1:] = 0  # a single positive value
    x[1] = x[1].sign()
    best = (mean_squared_error(x, bits, symmetric=True).nearest(x) - x).square().sum(1)
    narrow = (with_one_level_less(x, bits).nearest(x) - x).square().sum(1)
    assert (best <= narrow * 1.001 + 1e-9).all()  # ties may go the other way
    assert best[:2].max() < 1e-9


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
    assert percentile(x, 8, symmetric=True, share=90.25).scale.item() == pytest.approx(80.5 / 127.5)


def test_percentile_agrees_with_torch():
    x = rows()
    low, high = (torch.quantile(x, q, dim=1, keepdim=True) for q in (0.003, 0.997))
    expected = grid_between(low, high, 8, False)
    assert torch.allclose(percentile(x, 8, False, share=99.7).scale, expected.scale, rtol=1e-4)


@pytest.mark.parametrize("estimator", RANGE_ESTIMATORS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
class TestEveryRangeEstimator:
    def test_zero_stays_zero(self, estimator, symmetric, bits, dtype):
        grid = RANGE_ESTIMATORS[estimator](rows(), bits, symmetric, dtype)
        assert torch.equal(grid.nearest(torch.zeros(5, 3)), torch.zeros(5, 3))

    def test_codes_fit_their_bits(self, estimator, symmetric, bits, dtype):
        grid = RANGE_ESTIMATORS[estimator](rows(), bits, symmetric, dtype)
        codes = grid.quantize(100 * rows())
        assert codes.min() == 0
        assert codes.max() == 2**bits - 1
        assert torch.equal(codes, codes.round())

    def test_rounding_twice_is_rounding_once(self, estimator, symmetric, bits, dtype):
        grid = RANGE_ESTIMATORS[estimator](rows(), bits, symmetric, dtype)
        once = grid.nearest(rows())
        assert torch.equal(grid.nearest(once), once)

    def test_scales_are_values_of_their_type(self, estimator, symmetric, bits, dtype):
        scale = RANGE_ESTIMATORS[estimator](rows(), bits, symmetric, dtype).scale
        assert torch.equal(scale.to(dtype).float(), scale)

    @pytest.mark.parametrize("x", [torch.zeros(2, 7), torch.full((2, 7), 0.37), torch.full((2, 7), -5.0)])
    def test_constant_rows_are_kept(self, estimator, symmetric, bits, dtype, x):
        grid = RANGE_ESTIMATORS[estimator](x, bits, symmetric, dtype)
        assert grid.scale.isfinite().all()
        exact = not symmetric or estimator == "mse"  # else the ends of the range are half a step off the grid
        tolerance = 1e-3 * x.abs() + (0 if exact else grid.scale / 2)
        assert ((grid.nearest(x) - x).abs() <= tolerance).all()

    def test_mse_is_never_worse_than_min_max(self, estimator, symmetric, bits, dtype):
        x = rows(seed=3)
        best = (mean_squared_error(x, bits, symmetric, dtype).nearest(x) - x).square().sum(1)
        other = (RANGE_ESTIMATORS[estimator](x, bits, symmetric, dtype).nearest(x) - x).square().sum(1)
        if estimator in ("min-max", "mse"):
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


def test_mse_shrinks_the_grid_where_there_are_outliers():
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
    quantized = quantize_groups(weight, lambda part: min_max(part, 4, False), group_size)
    for index, columns in enumerate(weight.split(group_size or 14, dim=1)):
        alone = min_max(columns, 4, False)
        begin = index * (group_size or 14)
        assert torch.equal(quantized.scales[:, index : index + 1], alone.scale)
        assert torch.equal(quantized.zero_points[:, index : index + 1], alone.zero_point)
        assert torch.equal(quantized.codes[:, begin : begin + columns.shape[1]], alone.quantize(columns))
