"""GEGLU: a feed-forward network whose hidden units are gated through GELU.

Paper: https://arxiv.org/abs/2002.05202.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.replacement import Replacement


class Geglu(Replacement):
    """gelu(gate) * up, down; without biases."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., hidden] -> [..., dim]."""
        return self.down(F.gelu(self.gate(x)) * self.up(x))

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim, "hidden": self.hidden}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
