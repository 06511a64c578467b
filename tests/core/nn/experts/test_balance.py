"""Golden values of the losses that keep experts busy."""

import math

import pytest
import torch

from core.nn.experts.balance import entropy, load_balancing_loss, probability_in_top_k, squared_variation

CLEAN = torch.tensor([1.0, 0.3, -0.2, 0.5, 0.0], dtype=torch.float64)
SIGMA = torch.tensor([0.7, 1.2, 0.4, 0.9, 0.6], dtype=torch.float64)
NOISE = torch.tensor([0.2, -0.5, 1.0, 0.1, -0.3], dtype=torch.float64)


def test_probability_of_being_among_the_k():
    likely = probability_in_top_k(CLEAN, CLEAN + NOISE * SIGMA, SIGMA, 2)
    expected = torch.tensor([0.8735, 0.4045, 0.0241, 0.6306, 0.1627], dtype=torch.float64)
    torch.testing.assert_close(likely, expected, atol=5e-5, rtol=0)


def test_it_is_the_share_of_draws_of_one_experts_noise_that_choose_it():
    noisy = CLEAN + NOISE * SIGMA
    likely = probability_in_top_k(CLEAN, noisy, SIGMA, 2)
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i in range(5):
        others = torch.cat((noisy[:i], noisy[i + 1 :])).topk(2).values[-1]
        share = (CLEAN[i] + SIGMA[i] * draws > others).double().mean()
        assert float(likely[i]) == pytest.approx(float(share), abs=4e-3)


def test_variation_is_the_populations():
    assert float(squared_variation(torch.tensor([1.0, 2.0, 3.0]))) == pytest.approx(1 / 6)
    assert float(squared_variation(torch.ones(4))) == 0


def test_load_balancing_by_hand():
    shares, means = torch.tensor([0.5, 0.25, 0.25, 0.0]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert 0.01 * float(load_balancing_loss(shares, means)) == pytest.approx(0.013)
    even = torch.full((4,), 0.25)
    assert float(load_balancing_loss(even, even)) == pytest.approx(1.0)


def test_entropy_is_a_share_of_the_largest():
    rows = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(entropy(rows), torch.tensor([1.0, 0.0, math.log(2) / math.log(4)]))
