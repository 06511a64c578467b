"""The low-rank term that takes back most of a weight's error, measured on the layer's outputs.

Papers: https://arxiv.org/abs/2410.21271 (EoRA), https://arxiv.org/abs/2402.02446 (LQER).
"""

import torch
from torch import Tensor


def correction(error: Tensor, second_moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B [out, rank] and A [rank, in] that make tr((error - B A) E (error - B A)^T) least.

    `error` is [out, in], and `second_moment` E [in, in] the sum of x x^T over inputs x, or any multiple of it. The
    papers take the singular vectors of error S with S S^T = E, and the inverse of S. Here the columns of B are the same
    left singular vectors, as eigenvectors of error E error^T, and A = B^T error needs no inverse, so that E may be
    singular. What is left is the sum of the other eigenvalues.
    """
    error = error.double()
    vectors = torch.linalg.eigh(error @ second_moment.double() @ error.mT).eigenvectors
    up = vectors[:, -rank:].flip(1)
    return up, up.mT @ error


def balanced(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, with the columns of `up` [out, rank] as long as the rows of `down` [rank, in]."""
    lengths = up.norm(dim=0), down.norm(dim=1)
    factor = (lengths[1] / lengths[0].clamp(min=1e-300)).sqrt().clamp(min=1e-30)
    return up * factor, down / factor[:, None]
