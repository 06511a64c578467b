"""Feed-forward networks that count tokens, as routers do: they must know the padding, and who may see whom."""

from torch import Tensor, nn


class Masked(nn.Module):
    """A feed-forward network that is told the mask, and whether the model is causal."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; `mask` [B, T] is True at tokens, False at padding.

        With `causal`, in evaluation, nothing a token gets may depend on later tokens or on how many there are.
        """
        raise NotImplementedError(type(self).__name__)


def feed_forward(ffn: nn.Module, x: Tensor, *, mask: Tensor | None, attention: nn.Module) -> Tensor:
    """`ffn` of x [B, T, dim], told what it must know; `attention` is that of the same block."""
    if not isinstance(ffn, Masked):
        fed: Tensor = ffn(x)
        return fed
    return ffn(x, mask=mask, causal=bool(getattr(attention, "causal", False)))
