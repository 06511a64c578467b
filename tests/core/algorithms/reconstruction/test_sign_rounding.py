"""SignRound's offsets: where they begin, their gradients and steps, and which iteration is kept."""

import pytest
import torch

from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.algorithms.reconstruction.learning import weight_of
from core.algorithms.reconstruction.row_grid import RowGrid
from core.algorithms.reconstruction.sign_rounding import SignRounding, learn_offsets
from tests.core.algorithms.reconstruction.problems import correlated, linear_of, problem
from tests.core.algorithms.reconstruction.test_soft_rounding import SCHEMES, weight


@pytest.mark.parametrize("estimator", ["min-max", "percentile", "mse"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_offsets_begin_as_rounding_to_nearest(scheme, estimator):
    scheme = QuantizationScheme(scheme.bits, scheme.symmetric, scheme.group_size, estimator)
    linear = linear_of(weight())
    nearest = scheme.pack(linear, lambda fit, size: quantize_groups(linear.weight, fit, size))
    rounding = SignRounding(RowGrid(linear, scheme))
    (packed,) = rounding.pack()
    assert torch.equal(rounding.weight(), nearest.weight())
    assert all(torch.equal(*pair) for pair in zip(packed.unpacked(), nearest.unpacked(), strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_and_grid_are_those_of_the_paper(scheme):
    grid = RowGrid(linear_of(weight()), scheme)
    rounding = SignRounding(grid)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        rounding.rounding.uniform_(-0.5, 0.5, generator=generator)
        rounding.low.uniform_(0.5, 1, generator=generator)
        rounding.high.uniform_(0.5, 1, generator=generator)
    scale, zero_point = grid.scale.double(), grid.zero_point.double()
    if scheme.symmetric:
        expected_scale, expected_zero_point = scale * rounding.high, zero_point
    else:
        low, high = -scale * zero_point * rounding.low, scale * (grid.highest - zero_point) * rounding.high
        expected_scale = (high - low) / grid.highest
        expected_zero_point = torch.round(-low / expected_scale)
    expected_scale = expected_scale.detach().to(grid.dtype).double()
    by_weight = grid.spread(expected_scale)
    codes = torch.round(weight().double() / by_weight + rounding.rounding.detach()) + grid.spread(expected_zero_point)
    found = rounding.pack()[0].unpacked()
    assert torch.equal(found[0].double(), codes.clamp(0, grid.highest))
    assert torch.equal(found[1].double(), expected_scale)
    assert torch.equal(rounding.weight(), weight_of(rounding.pack()))


def test_gradients_pass_rounding_and_stop_where_codes_are_clipped():
    grid = RowGrid(linear_of(weight()), QuantizationScheme(3))
    rounding = SignRounding(grid)
    rounding.weight().sum().backward()
    codes = torch.round(weight() / grid.scale) + grid.zero_point
    inside = (codes >= 0) & (codes <= grid.highest)
    assert not inside.all()
    assert torch.allclose(rounding.rounding.grad, inside * grid.scale)
    # d/d(factor) of s * (round(w / s + v)): s times code minus what the place in the grid loses
    position = weight() / grid.scale
    expected = grid.scale * torch.where(inside, position.round() - position, codes.clamp(0, 7) - 4)
    assert torch.allclose(rounding.high.grad, expected.sum(1, keepdim=True), atol=1e-5)


def test_a_step_goes_against_the_signs_and_stays_within_the_limits():
    rounding = SignRounding(RowGrid(linear_of(weight()), QuantizationScheme(3, symmetric=False)))
    rounding.rounding.grad = torch.linspace(-1, 1, 120).view(6, 20)
    rounding.low.grad, rounding.high.grad = -torch.ones(6, 1), torch.ones(6, 1)
    signs = rounding.rounding.grad.sign()
    rounding.step(0.2)
    assert torch.allclose(rounding.rounding, -0.2 * signs)
    assert torch.equal(rounding.low, torch.ones(6, 1))
    assert torch.allclose(rounding.high, torch.full((6, 1), 0.8))
    rounding.rounding.grad = signs
    rounding.step(9.0)
    assert torch.equal(rounding.rounding, -0.5 * signs)


@pytest.mark.parametrize("symmetric", [True, False])
def test_learning_makes_the_error_smaller(symmetric):
    learning, _ = problem(weight(), correlated(64, 20), QuantizationScheme(3, symmetric), iterations=100)
    learned = learn_offsets(learning, learning_rate=0.01, learn_range=True)
    assert learning.mean_error({"layer": weight_of(learned["layer"])}) < 0.8 * learning.nearest_error


def test_where_no_iteration_is_better_the_first_is_kept():
    learning, _ = problem(weight(), correlated(64, 20), iterations=4)
    worse = []
    learning.mean_error = lambda weights: worse.append(weights) or 1e9  # type: ignore[method-assign]
    learning.nearest_error = 1.0  # type: ignore[misc]
    packed = learn_offsets(learning, learning_rate=0.1, learn_range=True)["layer"][0]
    assert worse
    assert torch.equal(packed.unpacked()[0].float(), learning.grids["layer"].codes)


def test_the_iteration_of_the_smallest_error_is_kept():
    learning, _ = problem(weight(), correlated(64, 20), iterations=100)
    seen = []
    measure = learning.mean_error
    learning.mean_error = lambda weights: seen.append(measure(weights)) or seen[-1]  # type: ignore[method-assign]
    learned = learn_offsets(learning, learning_rate=0.2, learn_range=True)
    kept = measure({"layer": weight_of(learned["layer"])})
    assert kept == pytest.approx(min(*seen, learning.nearest_error))
    assert kept < seen[-1] or len(set(seen)) > 1


def test_pruned_weights_stay_zero():
    mask = torch.rand(6, 20, generator=torch.Generator().manual_seed(2)) > 0.5
    for symmetric in (True, False):
        scheme = QuantizationScheme(3, symmetric)
        learning, _ = problem(weight() * mask, correlated(64, 20), scheme, iterations=40, mask=mask)
        assert not weight_of(learn_offsets(learning, learning_rate=0.1, learn_range=True)["layer"])[~mask].any()
