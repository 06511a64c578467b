"""Softmax and GELU by second-order polynomials and shifts, which integer arithmetic can compute. Here in floats.

Paper: https://arxiv.org/abs/2101.01321 (I-BERT, sections 3.4 and 3.5), as FQ-ViT uses it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from core.nn.precision import wide
from core.nn.replacement import Replacement

_A, _B = -0.2888, -1.769


def exp(x: Tensor) -> Tensor:
    """e**x of x <= 0: a polynomial on (-ln 2, 0], and a shift. The error is at most 2.1e-3."""
    shifts = torch.floor(-x / math.log(2))
    rest = x + shifts * math.log(2)
    return torch.exp2(-shifts) * (0.3585 * (rest + 1.353).square() + 0.344)


def softmax(scores: Tensor) -> Tensor:
    """Probabilities of scores [..., n], over the last axis."""
    powers = exp(scores - scores.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def gelu(x: Tensor) -> Tensor:
    """GELU by a polynomial for erf. The error is at most 0.0182."""
    scaled = x / 2**0.5
    erf = scaled.sign() * (_A * (scaled.abs().clamp(max=-_B) + _B).square() + 1)
    return x * (1 + erf) / 2


class IntegerGelu(Replacement):
    """`gelu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(wide(x)).to(x.dtype)

    def arguments(self) -> dict[str, Any]:
        return {}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None
