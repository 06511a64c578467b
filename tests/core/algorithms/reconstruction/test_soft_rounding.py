"""AdaRound's soft rounding: where it begins, what pulls it to codes, and what it ends at."""

import pytest
import torch

from core.algorithms.quantization_grids import QuantizationScheme
from core.algorithms.reconstruction.learning import weight_of
from core.algorithms.reconstruction.row_grid import RowGrid
from core.algorithms.reconstruction.soft_rounding import (
    SoftRounding,
    beta_at,
    inverse_rectified_sigmoid,
    learn_soft_rounding,
    rectified_sigmoid,
)
from tests.core.algorithms.reconstruction.problems import correlated, linear_of, problem

SCHEMES = [
    QuantizationScheme(bits, symmetric, group_size)
    for bits in (2, 4)
    for symmetric in (True, False)
    for group_size in (None, 8)
]


def weight(rows: int = 6, d: int = 20) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(1))


def test_h_reaches_both_codes_and_its_inverse_gives_it_back():
    assert rectified_sigmoid(torch.tensor([-3.0, 0.0, 3.0])).tolist() == [0.0, 0.5, 1.0]
    h = torch.linspace(0, 1, 101)
    assert torch.allclose(rectified_sigmoid(inverse_rectified_sigmoid(h)), h, atol=1e-6)


def test_beta_falls_from_20_to_2_after_a_fifth_without_regularizer():
    assert beta_at(0.19) is None
    assert beta_at(0.2) == 20
    assert beta_at(0.6) == pytest.approx(11)
    assert beta_at(1.0) == pytest.approx(2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_soft_weights_begin_as_the_weights_where_the_grid_reaches_them(scheme):
    grid = RowGrid(linear_of(weight()), scheme)
    lowest, highest = (
        grid.values(torch.full_like(grid.codes, code), grid.scale, grid.zero_point) for code in (0.0, grid.highest)
    )
    soft = SoftRounding(grid).weight()
    assert torch.allclose(soft, torch.minimum(torch.maximum(weight(), lowest), highest), atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_are_the_two_around_each_weight(scheme):
    learning, _ = problem(weight(), correlated(64, 20), scheme, iterations=60)
    packed = learn_soft_rounding(learning, learning_rate=0.3, strength=100.0)["layer"]
    grid = learning.grids["layer"]
    codes = packed[0].unpacked()[0].float()
    below = torch.floor(weight() / grid.spread(grid.scale)) + grid.spread(grid.zero_point)
    allowed = [(below + up).clamp(0, grid.highest) for up in (0, 1)]
    assert ((codes == allowed[0]) | (codes == allowed[1])).all()
    assert not torch.equal(codes, grid.codes)


def test_nearly_all_weights_have_their_code_before_they_are_rounded_and_the_error_is_smaller():
    learning, record = problem(weight(), correlated(64, 20))
    learned = learn_soft_rounding(learning, learning_rate=0.25, strength=100.0)
    assert record.curves["0/decided weights"][-1][1] >= 0.99
    error = learning.mean_error({"layer": weight_of(learned["layer"])})
    assert error < 0.7 * learning.nearest_error


def test_the_balance_depends_neither_on_the_size_of_a_layer_nor_on_the_scale_of_inputs():
    x = correlated(64, 20)
    cases = [(weight(), x), (weight().repeat(8, 1), x), (weight(), 32 * x), (weight() / 16, x)]
    found = []
    for values, inputs in cases:
        learning, _ = problem(values, inputs, iterations=100)
        packed = learn_soft_rounding(learning, learning_rate=0.1, strength=0.5)["layer"][0]
        found.append(packed.unpacked()[0][:6])
    assert all(agreement(codes, found[0]) > 0.98 for codes in found)
    learning, _ = problem(weight(), x, iterations=100)
    other = learn_soft_rounding(learning, learning_rate=0.1, strength=4.0)["layer"][0]  # as if 8 times the size counted
    assert agreement(other.unpacked()[0], found[0]) < 0.96


def agreement(codes: torch.Tensor, others: torch.Tensor) -> float:
    return float((codes == others).float().mean())


def test_pruned_weights_stay_zero():
    mask = torch.rand(6, 20, generator=torch.Generator().manual_seed(2)) > 0.5
    for symmetric in (True, False):
        scheme = QuantizationScheme(3, symmetric)
        learning, _ = problem(weight() * mask, correlated(64, 20), scheme, iterations=40, mask=mask)
        packed = learn_soft_rounding(learning, learning_rate=0.5, strength=1.0)["layer"]
        assert not weight_of(packed)[~mask].any()
