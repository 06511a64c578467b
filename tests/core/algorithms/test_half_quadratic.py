"""The half-quadratic solver: by hand, against a slow oracle, and against rounding to nearest."""

import pytest
import torch
from torch import Tensor

from core.algorithms.half_quadratic import RealGrid, half_quadratic, lp_error, shrink
from core.algorithms.quantization_grids import min_max


def rows(n_rows: int = 40, n: int = 64, seed: int = 0) -> Tensor:
    """Rows with outliers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, n, generator=generator)
    return 0.02 * x * torch.rand(n_rows, n, generator=generator).clamp_min(0.1).rsqrt()


def oracle(x: list[float], bits: int, *, fit_scale: bool) -> tuple[float, float]:
    """Zero point and error of the published iteration on one row, number by number, best of all iterations."""
    top = 2**bits - 1
    scale = (max(x) - min(x)) / top
    zero, beta, best = -min(x) / scale, 10.0, (0.0, float("inf"))
    for _ in range(21):
        codes = [min(max(round(w / scale + zero), 0), top) for w in x]
        errors = [w / scale - (q - zero) for w, q in zip(x, codes, strict=True)]
        total = sum(abs(e * scale) ** 0.7 for e in errors)
        if total < best[1]:
            best = (zero, total)
        shrunk = [(1 if e > 0 else -1) * max(abs(e) - abs(e) ** -0.3 / beta, 0.0) if e else 0.0 for e in errors]
        kept = [w / scale - e for w, e in zip(x, shrunk, strict=True)]
        zero = sum(q - k for q, k in zip(codes, kept, strict=True)) / len(x)
        if fit_scale:
            steps = [q - zero for q in codes]
            scale *= sum(k * s for k, s in zip(kept, steps, strict=True)) / sum(s * s for s in steps)
        beta *= 1.01
    return best


def test_shrinking_by_hand():
    x = torch.tensor([4.0, -4.0, 0.5, 0.0])  # 4 - 4^-0.5 = 3.5; 0.5 - 0.5^-0.5 < 0
    assert shrink(x, 1.0, 0.5).tolist() == [3.5, -3.5, 0.0, 0.0]
    assert shrink(x, 4.0, 0.5).tolist() == pytest.approx([3.875, -3.875, 0.5 - 0.5**-0.5 / 4, 0.0])
    assert shrink(x, 2.0, 1.0).tolist() == [3.5, -3.5, 0.0, 0.0]  # soft thresholding


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("fit_scale", [False, True])
def test_it_does_what_the_published_iteration_does(bits, fit_scale):
    x = rows()
    grid = half_quadratic(x, bits, fit_scale=fit_scale)
    found = lp_error(grid, x, 0.7)[:, 0]
    plain = lp_error(min_max(x, bits, False), x, 0.7)[:, 0]  # may have been kept
    expected = [oracle(row, bits, fit_scale=fit_scale) for row in x.double().tolist()]
    errors = torch.tensor([error for _, error in expected])
    compared = errors < 0.97 * plain
    assert compared.float().mean() > 0.4
    assert torch.allclose(found[compared], errors[compared], rtol=0.03)  # ours are sums in float32
    zero_points = torch.tensor([zero for zero, _ in expected])
    assert float((grid.zero_point[compared, 0] - zero_points[compared]).abs().median()) < 0.005


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fit_scale", [False, True])
@pytest.mark.parametrize("norm", [0.5, 0.7, 1.0])
def test_no_row_is_worse_than_rounded_to_nearest(bits, dtype, fit_scale, norm):
    x = rows()
    grid = half_quadratic(x, bits, dtype, fit_scale=fit_scale, norm=norm)
    found, plain = lp_error(grid, x, norm), lp_error(min_max(x, bits, False, dtype), x, norm)
    assert (found <= plain * (1 + 1e-6)).all()
    coarse = bits == 8 and dtype == torch.bfloat16  # which has no fractions of a zero point above 128
    assert found.sum() < (1.0 if coarse else 0.98) * plain.sum()
    assert torch.equal(grid.scale.to(dtype).float(), grid.scale)
    assert torch.equal(grid.zero_point.to(dtype).float(), grid.zero_point)


@pytest.mark.parametrize("bits", [2, 4])
def test_fitting_scales_too_lowers_the_error(bits):
    x = rows()
    both, zero_points = (lp_error(half_quadratic(x, bits, fit_scale=fit), x, 0.7).sum() for fit in (True, False))
    assert both < 0.99 * zero_points


@pytest.mark.parametrize("bits", [3, 4])
def test_zero_points_come_near_to_the_best_of_all_at_the_same_scale(bits):
    x = rows()
    grid = half_quadratic(x, bits)
    found = lp_error(grid, x, 0.7)
    shifts = torch.linspace(-1, 1, 401)
    all_errors = torch.cat([lp_error(RealGrid(grid.scale, grid.zero_point + s, bits), x, 0.7) for s in shifts], dim=1)
    assert found.sum() < 1.05 * all_errors.amin(1).sum()


def test_the_unit_of_the_values_does_not_matter():
    x = rows()
    one, other = half_quadratic(x, 3), half_quadratic(64 * x, 3)
    assert torch.equal(one.zero_point, other.zero_point)
    assert torch.equal(64 * one.scale, other.scale)


@pytest.mark.parametrize("fit_scale", [False, True])
def test_rows_with_zeros_keep_them(fit_scale):
    x = rows()
    x[::2, 5:30] = 0
    x[4] = 0
    grid = half_quadratic(x, 3, fit_scale=fit_scale)
    nearest = grid.nearest(x)
    assert not nearest[x == 0].any()
    assert torch.equal(grid.zero_point[::2], grid.zero_point[::2].round())
    assert (grid.zero_point[1::2] != grid.zero_point[1::2].round()).any()


def test_constant_rows_are_kept():
    x = torch.tensor([[0.37], [-5.0], [1e-6]]).expand(3, 8)
    grid = half_quadratic(x, 4)
    assert torch.allclose(grid.nearest(x), x, rtol=1e-3)
