"""Feed-forward networks that must know which tokens are padding: those that count tokens, as routers do."""

from torch import Tensor, nn


class Masked(nn.Module):
    """A feed-forward network that is told the mask."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; `mask` [B, T] is True at tokens, False at padding."""
        raise NotImplementedError(type(self).__name__)
