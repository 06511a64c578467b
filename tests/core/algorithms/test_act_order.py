"""The sweep in the order of the inputs' size, with static groups; and Hessians that are not positive definite."""

from functools import partial

import pytest
import torch
from torch import Tensor

from core.algorithms.quantization_grids import QuantizedWeight, importance_weighted, min_max, quantize_groups
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import NOfM, exact_error, factorize, solve
from tests.core.algorithms.surgeon import EXACT, damped, problem, rounding, surgeon


def static(bits: int = 3, group_size: int | None = None) -> Rounding:
    return Rounding(partial(min_max, bits=bits, symmetric=True), group_size, static=True)


def apart(weight: Tensor, group_size: int | None) -> QuantizedWeight:
    """What rounding to nearest makes of a weight with three bits."""
    return quantize_groups(weight.float(), partial(min_max, bits=3, symmetric=True), group_size)


@pytest.mark.parametrize("group_size", [None, 8, 10])
@pytest.mark.parametrize("block", [1, 16, 128])
@pytest.mark.parametrize("has_old", [False, True])
def test_columns_go_by_falling_diagonal_and_grids_are_those_of_the_original_groups(group_size, block, has_old):
    weight, hessian = problem()
    old = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.8 if has_old else None
    weight = weight if old is None else weight * old
    grids = static(3, group_size)
    found = solve(weight, factorize(hessian, act_order=True), mask=old, rounding=grids, block_size=block)
    order = sorted(range(24), key=lambda i: -float(hessian[i, i]))
    permuted_old = None if old is None else old[:, order]
    expected, _ = surgeon(weight, damped(hessian), old=permuted_old, bits=3, group_size=group_size, order=order)
    assert torch.allclose(found.weight, expected, atol=1e-6)  # grids are float32
    codes, scales, zero_points = grids.result()
    assert torch.equal(
        scales, quantize_groups(weight.float(), partial(min_max, bits=3, symmetric=True), group_size).scales
    )
    size = group_size or 24
    offsets = codes - zero_points.repeat_interleave(size, dim=1)[:, :24]
    assert torch.equal((scales.repeat_interleave(size, dim=1)[:, :24] * offsets).double(), found.weight)
    if old is not None:
        assert torch.equal(found.mask, old)
        assert not found.weight[~old].any()


@pytest.mark.parametrize("group_size", [None, 8])
def test_the_errors_sum_up_to_that_of_the_outputs_in_any_order(group_size):
    weight, hessian = problem(d=48)
    hessian[:, 7] = hessian[7] = 0  # a dead input
    found = solve(weight, factorize(hessian, act_order=True), rounding=static(3, group_size))
    alive = weight.clone()
    alive[:, 7] = 0
    mean = hessian.diagonal().sum() / 47
    by_row = exact_rows(found.weight - alive, hessian + 0.01 * mean * torch.eye(48, dtype=EXACT))
    assert torch.allclose(found.error, by_row, rtol=1e-11)
    assert not found.weight[:, 7].any()


def exact_rows(change: Tensor, hessian: Tensor) -> Tensor:
    return ((change @ hessian) * change).sum(1)


def test_static_groups_are_fitted_before_anything_is_made_up_for():
    weight, hessian = problem()
    order = list(range(24))
    found = solve(weight, factorize(hessian), rounding=static(3, 8))
    expected, _ = surgeon(weight, damped(hessian), bits=3, group_size=8, order=order)
    assert torch.allclose(found.weight, expected, atol=1e-6)
    assert not torch.allclose(found.weight, solve(weight, factorize(hessian), rounding=rounding(3, True, 8)).weight)


@pytest.mark.parametrize("seed", range(3))
def test_with_inputs_of_very_different_size_the_order_lowers_the_error(seed):
    weight, hessian = problem(rows=32, d=64, n=400, seed=seed)
    sizes = torch.linspace(-2, 2, 64, dtype=EXACT).exp()  # the largest come last
    hessian = hessian * sizes[:, None] * sizes

    def error(act_order: bool) -> float:
        found = solve(weight, factorize(hessian, act_order=act_order), rounding=static(3, 16))
        return float(exact_error(found.weight - weight, hessian))

    nearest = static(3, 16)
    nearest.begin_all(weight)
    rounded = torch.stack([nearest.round(i, column) for i, column in enumerate(weight.T)], dim=1)
    assert error(act_order=True) < 0.9 * error(act_order=False)
    assert error(act_order=False) < 0.95 * float(exact_error(rounded - weight, hessian))


def test_groups_that_are_fitted_in_the_sweep_and_nm_patterns_need_neighbours():
    weight, hessian = problem()
    factor = factorize(hessian, act_order=True)
    for settings in ({"rounding": rounding(3, True, 8)}, {"pattern": NOfM(2, 4)}):
        with pytest.raises(ValueError, match="not neighbours"):
            solve(weight, factor, **settings)


@pytest.mark.parametrize(("shift", "expected"), [(0.05, 0.1), (0.5, 1.0), (5.0, 10.0), (50.0, None)])
@pytest.mark.parametrize("act_order", [False, True])
def test_damping_is_raised_until_the_hessian_is_positive_definite(shift, expected, act_order):
    weight, _ = problem()
    factor = factorize(indefinite(shift), act_order=act_order)
    assert factor.damping == expected
    found = solve(weight, factor, rounding=static(3, 8))
    nearest = apart(weight, 8)
    values = (nearest.codes - 4) * nearest.scales.repeat_interleave(8, dim=1)
    assert torch.equal(found.weight.float(), values) == (expected is None)


def indefinite(shift: float) -> Tensor:
    """A Hessian with diagonal 1 and the least eigenvalue -shift."""
    hessian = torch.eye(24, dtype=EXACT)
    hessian[3, 9] = hessian[9, 3] = 1 + shift
    return hessian


def test_a_singular_hessian_is_damped_as_asked():
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    factor = factorize(2 / 5 * x.T @ x)  # of rank 5, in float32
    assert factor.damping == 0.01
    assert torch.isfinite(factor.upper).all()


def test_where_only_the_diagonal_counts_pruning_is_by_weighted_magnitude():
    weight, _ = problem()
    hessian = indefinite(500.0)
    hessian[0, 0] = 100.0
    found = solve(weight, factorize(hessian), pattern=NOfM(2, 4))
    assert torch.equal(found.weight, weight * found.mask)
    expected = solve(weight, factorize(hessian.diagonal().diag()), pattern=NOfM(2, 4))
    assert torch.equal(found.mask, expected.mask)


def test_each_group_is_fitted_with_the_importance_of_its_own_columns():
    weight, hessian = problem()
    importance = hessian.diagonal().float()
    fit = partial(importance_weighted, bits=3, symmetric=False)

    def weighed(rows, importance):
        return fit(rows, importance=importance)

    sweep = Rounding(weighed, 10, static=True, importance=importance)
    solve(weight, factorize(hessian, act_order=True), rounding=sweep)
    alone = quantize_groups(weight.float(), weighed, 10, importance)
    for found, expected in zip(sweep.result()[1:], alone[1:], strict=True):
        assert torch.equal(found, expected)
