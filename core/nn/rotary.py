"""Rotary position embedding: queries and keys are turned by angles proportional to their absolute positions.

Paper: https://arxiv.org/abs/2104.09864. The halves of a head are paired (as in LLaMA), not its neighbours.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

BASE = 10000.0  # of the paper: sets the slowest turn


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [..., T, head_dim] by the angles whose cosine and sine [T, head_dim] are given."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Rotary(nn.Module):
    """Angles of absolute positions; `base` sets the slowest turn."""

    inverse_frequency: Tensor

    def __init__(self, head_dim: int, base: float = BASE):
        super().__init__()
        self.base = base
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inverse_frequency", base**-exponent, persistent=False)  # [head_dim / 2]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the frequencies with the module, but never cast them: they are computed anew when a model is loaded."""
        frequencies = self.inverse_frequency
        super()._apply(fn, recurse)
        if self.inverse_frequency.dtype != frequencies.dtype:
            self.inverse_frequency = frequencies.to(self.inverse_frequency.device)
        return self

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [B, heads, T, head_dim] turned to their absolute positions [T]."""
        angle = positions[:, None].float() * self.inverse_frequency.float()  # [T, head_dim / 2]
        angle = torch.cat((angle, angle), dim=-1)
        cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)
        return rotate(q, cos, sin), rotate(k, cos, sin)
