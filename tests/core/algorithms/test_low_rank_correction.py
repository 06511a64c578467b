"""Low-rank correction: the outputs' error is exactly the tail of the singular values, and no other pair leaves less."""

import pytest
import torch

from core.algorithms.low_rank_correction import balanced, correction


def output_error(error: torch.Tensor, second_moment: torch.Tensor) -> float:
    return float(torch.trace(error @ second_moment @ error.T))


def problem(n_inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An error [24, 16], and the second moment of correlated inputs, some of them large."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    x = torch.randn(n_inputs, 16, generator=generator, dtype=torch.float64) @ mixing
    x[:, 3] *= 30
    return torch.randn(24, 16, generator=generator, dtype=torch.float64), x.T @ x


@pytest.mark.parametrize("rank", [1, 4, 15])
@pytest.mark.parametrize("n_inputs", [100, 7])
def test_what_is_left_is_exactly_the_tail_of_the_singular_values(rank, n_inputs):
    error, second_moment = problem(n_inputs)
    values, vectors = torch.linalg.eigh(second_moment)
    root = vectors * values.clamp(min=0).sqrt()  # S S^T = E, for a singular E too
    tail = torch.linalg.svdvals(error @ root)[rank:].square().sum()
    up, down = correction(error, second_moment, rank)
    assert output_error(error - up @ down, second_moment) == pytest.approx(float(tail), rel=1e-8, abs=1e-6)


@pytest.mark.parametrize("rank", [2, 8])
def test_the_pair_is_the_one_of_cholesky_and_singular_vectors(rank):
    error, second_moment = problem(100)
    lower = torch.linalg.cholesky(second_moment)
    U, S, Vh = torch.linalg.svd(error @ lower)
    expected = U[:, :rank] * S[:rank] @ torch.linalg.solve_triangular(lower, Vh[:rank], upper=False, left=False)
    up, down = correction(error, second_moment, rank)
    torch.testing.assert_close(up @ down, expected, rtol=1e-7, atol=1e-7)


def test_the_plain_singular_vectors_leave_more():
    error, second_moment = problem(100)
    U, S, Vh = torch.linalg.svd(error)
    plain = output_error(error - U[:, :4] * S[:4] @ Vh[:4], second_moment)
    up, down = correction(error, second_moment, 4)
    assert output_error(error - up @ down, second_moment) < 0.5 * plain


def test_an_error_of_low_rank_is_taken_back_whole():
    error, second_moment = problem(100)
    error = error[:, :3] @ torch.randn(3, 16, dtype=torch.float64)
    up, down = correction(error, second_moment, 3)
    torch.testing.assert_close(up @ down, error)


def test_balanced_factors_have_the_same_product_and_equal_lengths():
    up, down = correction(*problem(100), 5)
    even_up, even_down = balanced(up, down)
    torch.testing.assert_close(even_up @ even_down, up @ down)
    torch.testing.assert_close(even_up.norm(dim=0), even_down.norm(dim=1))
    zeros = balanced(torch.eye(4)[:, :2], torch.zeros(2, 3))
    assert all(factor.isfinite().all() for factor in zeros)
