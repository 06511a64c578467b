"""The Transformer's two-layer feed-forward network with GELU.

Papers: https://arxiv.org/abs/1706.03762 (section 3.3), https://arxiv.org/abs/1606.08415 (GELU).
"""

from torch import Tensor, nn


class Mlp(nn.Module):
    """up, GELU, down."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.activation: nn.Module = nn.GELU()
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., hidden] -> [..., dim]."""
        output: Tensor = self.down(self.activation(self.up(x)))
        return output
