"""What RWKV's layers share: they read a mixture of each token and the one before it, and begin in a pattern.

Paper: https://arxiv.org/abs/2305.13048, sections 3.1 and 3.4 and appendix E.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def shifted(x: Tensor, last: Tensor | None) -> Tensor:
    """The token before each of x [B, T, dim]; before the first is `last` [B, dim], nothing (zeros) if None."""
    before = torch.zeros_like(x[:, :1]) if last is None else last[:, None].to(x.dtype)
    return torch.cat((before, x[:, :-1]), dim=1)


@dataclass(frozen=True)
class Place:
    """Which of how many blocks a layer is in: what it begins with depends on it."""

    index: int
    depth: int

    @property
    def rising(self) -> float:
        """0 in the first block, 1 in the last."""
        return self.index / max(1, self.depth - 1)

    @property
    def falling(self) -> float:
        """1 in the first block, almost 0 in the last."""
        return 1 - self.index / self.depth


def ramp(dim: int, power: float) -> Tensor:
    """(i / dim) ** power for channels i [dim]."""
    return (torch.arange(dim) / dim) ** power


def speeds(dim: int, slowest: float, span: float, place: Place) -> Tensor:
    """Logarithms of the decays' rates [dim], from the slowest channel to the fastest."""
    return slowest + span * (torch.arange(dim) / max(1, dim - 1)) ** (0.7 + 1.3 * place.rising)


def zigzag(dim: int) -> Tensor:
    """0, 1, -1, 0, ... [dim]."""
    return (torch.arange(dim) + 1) % 3 - 1.0


@torch.no_grad()
def orthogonal_(linear: nn.Linear, gain: float, generator: torch.Generator | None) -> None:
    """Fill with an orthogonal matrix times `gain`, or with zeros; drawn on the generator's device."""
    drawn = torch.empty(linear.weight.shape)
    nn.init.orthogonal_(drawn, gain, generator=generator)
    linear.weight.copy_(drawn)
