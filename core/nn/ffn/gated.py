"""SwiGLU: a feed-forward network whose hidden units are gated.

Paper: https://arxiv.org/abs/2002.05202.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class GatedFfn(nn.Module):
    """silu(gate) * up, down; without biases, as in LLaMA."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., hidden] -> [..., dim]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))
