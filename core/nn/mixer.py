"""MLP-Mixer's token mixing: a small network over the tokens, the same for every channel, in the place of attention.

Paper: https://arxiv.org/abs/2105.01601, equation 1. With the block's norm and residual before and around it, and its
feed-forward network as the channel mixing, this is the paper's layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.cache import LayerCache
from core.nn.replacement import Replacement
from core.nn.transformer import normal_


class TokenMixing(Replacement):
    """down(gelu(up(x^T)))^T over exactly `tokens` places; a shorter text is followed by zeros."""

    causal = False
    limits_length = True

    def __init__(self, tokens: int, hidden: int):
        super().__init__()
        self.tokens, self.hidden = tokens, hidden
        self.up = nn.Linear(tokens, hidden)
        self.down = nn.Linear(hidden, tokens)

    def initialize_(self, generator: torch.Generator | None) -> None:
        """As the authors' code: normal with variance 1 / fan-in (LeCun), biases zero."""
        for linear in (self.up, self.down):
            normal_(linear.weight, linear.in_features**-0.5, generator)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim], T <= `tokens`; those whose `mask` [B, T] is False are zeros to the others."""
        assert cache is None, "token mixing is not causal"
        length = x.shape[1]
        if length > self.tokens:
            raise ValueError(f"the token mixing was made for {self.tokens} tokens, not {length}")
        if mask is not None:
            x = x * mask[:, :, None]
        columns = F.pad(x, (0, 0, 0, self.tokens - length)).transpose(1, 2)  # [B, dim, tokens]
        return self.down(F.gelu(self.up(columns))).transpose(1, 2)[:, :length]

    def arguments(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "hidden": self.hidden}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
