"""Orthogonal Hadamard matrices of any size, multiplied in O(n log n).

Papers: https://arxiv.org/abs/2404.00456 (QuaRot), https://doi.org/10.1002/sapm1933121311 (Paley's construction). A size
of 2^k is Sylvester's matrix. A size of 2^k m is the Kronecker product of Paley's m x m matrix and Sylvester's. Where
none is known, the matrix is block-diagonal, with blocks as large as the largest power of two that divides the size.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

LARGEST_FACTOR = 256  # rows of a Paley matrix: its product costs so much more than the O(log n) of Sylvester's


class Factors(NamedTuple):
    """A size as blocks * paley * sylvester; `paley` is 1 where no such factor is needed."""

    blocks: int
    paley: int
    sylvester: int


def factors_of(size: int) -> Factors:
    """How the Hadamard matrix of `size` channels is composed."""
    power = size & -size
    odd = size // power
    if odd == 1:
        return Factors(1, 1, size)
    for factor in itertools.takewhile(lambda f: f <= power, (4, 8, 16, 32)):
        if odd * factor <= LARGEST_FACTOR and _paley_field(odd * factor) is not None:
            return Factors(1, odd * factor, power // factor)
    return Factors(odd, 1, power)


def paley_matrix(size: int) -> Tensor:
    """A Hadamard matrix [size, size] of 1 and -1, float64; raises ValueError where Paley's constructions give none."""
    found = _paley_field(size)
    if found is None:
        raise ValueError(f"Paley's constructions give no Hadamard matrix of size {size}")
    q, doubled = found
    conference = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    conference[1:, 1:] = _jacobsthal(q)
    conference[0, 1:] = 1
    if not doubled:
        conference[1:, 0] = -1
        return conference + torch.eye(q + 1, dtype=torch.float64)
    conference[1:, 0] = 1
    off_diagonal = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    diagonal = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    return torch.kron(conference, off_diagonal) + torch.kron(torch.eye(q + 1, dtype=torch.float64), diagonal)


def sylvester_product(x: Tensor) -> Tensor:
    """x [..., 2^k] times Sylvester's matrix of 1 and -1, in k steps of additions."""
    size, width = x.shape[-1], 1
    while width < size:
        first, second = x.unflatten(-1, (-1, 2, width)).unbind(-2)
        x = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        width *= 2
    return x


class Hadamard(nn.Module):
    """Multiplies the last axis by an orthogonal Hadamard matrix: |x H| = |x|."""

    paley: Tensor | None

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.factors = factors_of(size)
        matrix = paley_matrix(self.factors.paley).float() if self.factors.paley > 1 else None
        self.register_buffer("paley", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x H, [..., size] -> [..., size] in the dtype of x; half precision is computed in float32."""
        return self._product(x, transposed=False)

    def inverse(self, x: Tensor) -> Tensor:
        """x H^T, which takes `forward` back."""
        return self._product(x, transposed=True)

    def _product(self, x: Tensor, *, transposed: bool) -> Tensor:
        precise = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        _, paley, sylvester = self.factors
        turned = sylvester_product(precise.unflatten(-1, self.factors))
        if self.paley is not None:
            matrix = self.paley.to(precise.dtype)
            turned = (matrix if transposed else matrix.mT) @ turned
        return (turned.flatten(-3) / math.sqrt(paley * sylvester)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.size} = " + " * ".join(map(str, self.factors))


def _paley_field(size: int) -> tuple[int, bool] | None:
    """The field whose squares give a Hadamard matrix of `size`, and whether by Paley's second construction."""
    if size % 4 == 0 and _root(size - 1) is not None and (size - 1) % 4 == 3:
        return size - 1, False
    if size % 4 == 0 and _root(size // 2 - 1) is not None and (size // 2 - 1) % 4 == 1:
        return size // 2 - 1, True
    return None


def _root(q: int) -> int | None:
    """The prime p with q = p or q = p^2, None where there is none."""
    root = math.isqrt(q)
    if _is_prime(q):
        return q
    return root if root * root == q and _is_prime(root) else None


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


def _jacobsthal(q: int) -> Tensor:
    """Entries [q, q] of 1 where the difference of two elements of the field is a square, 0 on the diagonal, else -1.

    Of p^2 elements a + b sqrt(n), one is a square exactly where its norm a^2 - n b^2 is a square modulo p.
    """
    p = _root(q)
    assert p is not None
    character = torch.full((p,), -1.0, dtype=torch.float64)
    character[torch.arange(p).square() % p] = 1
    character[0] = 0
    elements = torch.arange(q)
    real, imaginary = elements % p, elements // p  # the second is 0 throughout where q = p
    non_square = int((character < 0).nonzero()[0])
    a = real[:, None] - real
    b = imaginary[:, None] - imaginary
    norm = (a.square() - non_square * b.square()) % p if q > p else a % p
    return character[norm]
