"""Hadamard matrices: orthogonal for every size, equal to Sylvester's and Paley's written out, and good at outliers."""

import pytest
import torch

from core.nn.hadamard import Hadamard, factors_of, paley_matrix, sylvester_product


@pytest.mark.parametrize("size", [12, 20, 28, 36, 44, 52, 60, 76, 108, 140, 148])
def test_paley_matrices_are_hadamard(size):
    matrix = paley_matrix(size)
    assert set(matrix.unique().tolist()) == {-1, 1}
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


def test_the_fast_product_is_sylvesters_matrix():
    matrix = torch.ones(1, 1)
    for _ in range(5):
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    assert torch.equal(sylvester_product(torch.eye(32)), matrix)


@pytest.mark.parametrize(
    ("size", "factors"),
    [
        (1, (1, 1, 1)),
        (256, (1, 1, 256)),
        (768, (1, 12, 64)),
        (40, (1, 20, 2)),
        (14336, (1, 28, 512)),
        (52, (1, 52, 1)),
        (11008, (43, 1, 256)),  # no Hadamard matrix of size 172 is known to Paley
        (14, (7, 1, 2)),
    ],
)
def test_sizes_are_composed_of_the_known_matrices(size, factors):
    assert factors_of(size) == factors


@pytest.mark.parametrize("size", [1, 2, 14, 36, 40, 48, 64, 104])
def test_products_are_orthogonal_and_invert_each_other(size):
    hadamard, identity = Hadamard(size), torch.eye(size, dtype=torch.float64)
    matrix = hadamard(identity)
    torch.testing.assert_close(matrix @ matrix.T, identity, atol=1e-12, rtol=0)
    torch.testing.assert_close(hadamard.inverse(identity), matrix.T, atol=1e-12, rtol=0)
    blocks, paley, sylvester = hadamard.factors
    expected = (paley * sylvester) ** -0.5
    assert ((matrix.abs() - expected).abs() < 1e-12).sum() == blocks * (size // blocks) ** 2


def test_half_precision_is_rounded_once():
    x = torch.randn(3, 96, dtype=torch.bfloat16)
    hadamard = Hadamard(96)
    assert torch.equal(hadamard(x), hadamard(x.float()).bfloat16())


def rounded(x: torch.Tensor) -> torch.Tensor:
    """To 4 bits with a scale for each row, by its largest magnitude."""
    scale = x.abs().amax(-1, keepdim=True) / 7
    return (x / scale).round().clamp(-7, 7) * scale


@pytest.mark.parametrize(("size", "before", "after"), [(256, 0.40, 0.16), (1024, 0.59, 0.19)])
def test_outlier_channels_cost_four_bit_products_much_less_once_rotated(size, before, after):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, size, generator=generator)
    x[:, [3, size // 2 + 5]] *= 20
    weight = torch.randn(size, size, generator=generator)
    product, hadamard = x @ weight.T, Hadamard(size)

    def error(inputs: torch.Tensor, matrix: torch.Tensor) -> float:
        return float((rounded(inputs) @ rounded(matrix).T - product).norm() / product.norm())

    turned = hadamard(x)
    assert error(x, weight) == pytest.approx(before, abs=0.02)
    assert error(turned, hadamard(weight)) == pytest.approx(after, abs=0.02)
    assert float(turned.abs().amax() / turned.square().mean().sqrt()) < 6
