"""Gradients and values of rounding inside a training, against the papers' formulas."""

import math

import pytest
import torch

from core.algorithms.fake_quantization import (
    binary,
    elastic,
    initial_step,
    learned_step,
    step_codes,
    step_gradient_scale,
    stored,
    ternary,
    ternary_scale,
)
from core.nn.binary_linear import elastic_codes

LOW, HIGH = -4, 3


def values(n: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(function, *tensors: torch.Tensor) -> list[torch.Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return [torch.autograd.grad(out.sum(), leaf, retain_graph=True)[0] for leaf in leaves]


@pytest.mark.parametrize("step", [0.11, 0.4, 1.3])
def test_the_gradient_of_a_step_is_that_of_the_paper(step):
    for value in values(60).tolist():
        v, s = torch.tensor([value], dtype=torch.float64), torch.tensor([step], dtype=torch.float64)
        of_v, of_s = gradients(lambda v, s: learned_step(v, s, LOW, HIGH, gradient_scale=0.25), v, s)
        ratio = value / step
        inside = LOW <= ratio <= HIGH
        expected = round(ratio) - ratio if inside else LOW if ratio < LOW else HIGH
        assert float(of_s) == pytest.approx(0.25 * expected, abs=1e-12)
        assert abs(expected) <= 0.5 or not inside
        assert float(of_v) == inside


def test_a_step_sums_the_gradients_of_the_values_that_share_it():
    v, steps = values(24).view(4, 6), torch.tensor([0.1, 0.2, 0.5, 0.9], dtype=torch.float64)
    weighted = torch.arange(24.0, dtype=torch.float64).view(4, 6)
    leaf = steps.clone().requires_grad_()
    (weighted * learned_step(v, leaf[:, None], LOW, HIGH)).sum().backward()
    ratio = v / steps[:, None]
    expected = torch.where(ratio < LOW, LOW, torch.where(ratio > HIGH, HIGH, ratio.round() - ratio))
    torch.testing.assert_close(leaf.grad, (weighted * expected).sum(1))


def test_rounded_values_are_exactly_codes_times_the_stored_step():
    v, step = values().float(), torch.tensor(0.0371)
    used = stored(step, torch.float16)
    assert used == step.half().float() and used != step
    codes = step_codes(v, used, LOW, HIGH)
    assert torch.equal(learned_step(v, used, LOW, HIGH, 0.123), codes * used)
    assert codes.unique().tolist() == list(range(LOW, HIGH + 1))
    (gradient,) = gradients(lambda s: stored(s, torch.float16), step)
    assert gradient == 1


def test_first_steps_and_their_gradient_scale_are_the_paper_s():
    assert float(initial_step(torch.tensor(0.6), 7)) == pytest.approx(2 * 0.6 / math.sqrt(7))
    assert step_gradient_scale(128, 7) == pytest.approx(1 / math.sqrt(128 * 7))


def test_ternary_weights_have_three_values_of_one_scale_a_matrix():
    weight = values(2 * 60).view(2, 6, 10)
    rounded = ternary(weight, torch.float64)
    for matrix, source in zip(rounded, weight, strict=True):
        scale = float(source.abs().mean())
        assert matrix.unique().tolist() == pytest.approx([-scale, 0, scale])
        assert torch.equal(matrix == 0, (source / scale).abs() <= 0.5)
    assert float(ternary_scale(torch.zeros(1, 4))) == pytest.approx(1e-5)
    (gradient,) = gradients(lambda w: ternary(w, torch.float64), weight)
    assert (gradient == 1).all()


def test_binary_weights_have_the_mean_magnitude_about_their_mean():
    weight = values(2 * 30).view(2, 5, 6) + torch.tensor([3.0, -1.0], dtype=torch.float64)[:, None, None]
    rounded = binary(weight, torch.float64)
    for matrix, source in zip(rounded, weight, strict=True):
        scale = (source - source.mean()).abs().mean()
        torch.testing.assert_close(matrix, scale * torch.where(source >= source.mean(), 1.0, -1.0).double())
    (gradient,) = gradients(lambda w: binary(w, torch.float64), weight)
    assert (gradient == 1).all()


@pytest.mark.parametrize(
    ("bits", "signed", "codes"),
    [(1, False, [0, 1]), (1, True, [-1, 1]), (2, False, [0, 1, 2, 3]), (2, True, [-2, -1, 0, 1])],
)
def test_elastic_activations_have_two_sets(bits, signed, codes):
    x, step, shift = 3 * values(), torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    found = elastic_codes(x, step, shift, bits, signed)
    assert found.unique().tolist() == codes
    assert torch.equal(elastic(x, step, shift, bits, signed), found * step)
    if bits == 1 and not signed:
        torch.testing.assert_close(found, ((x - 0.3) / 0.7 > 0.5).double())


def test_the_gradients_of_elastic_activations_without_sign():
    """d/dalpha: 0 below beta, 1 above beta + alpha, between them round(u) - u; d/dbeta is minus d/dx."""
    alpha, beta = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    for value in (2 * values(60)).tolist():
        x = torch.tensor([value], dtype=torch.float64)
        of_x, of_alpha, of_beta = gradients(lambda x, a, b: elastic(x, a, b, 1, False), x, alpha, beta)
        u = (value - 0.3) / 0.7
        inside = 0 <= u <= 1
        assert float(of_x) == inside and float(of_beta) == -float(inside)
        assert float(of_alpha) == pytest.approx((round(u) - u) if inside else float(u > 1), abs=1e-12)


def test_the_gradients_of_elastic_signs():
    alpha, beta = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    for value in (2 * values(60)).tolist():
        x = torch.tensor([value], dtype=torch.float64)
        of_x, of_alpha, of_beta = gradients(lambda x, a, b: elastic(x, a, b, 1, True), x, alpha, beta)
        inside = abs(value - 0.3) <= 0.7
        assert float(of_x) == inside and float(of_beta) == -float(inside)
        assert float(of_alpha) == (1 if value >= 0.3 else -1)
