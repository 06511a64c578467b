"""Learned tokens in front of a Transformer's own: they enter before its blocks and leave after them.

Paper: https://arxiv.org/abs/2004.08483 (ETC), whose global input they are. Sparse attention lets every token see
them and them every token, so that they carry what is far apart. They have no positions but what they learn; rotary
attention turns them as the first tokens, the text's as those that follow.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.replacement import Replacement


class NoGlobalTokens(nn.Module):
    """What a Transformer has in their place until a step puts some in."""

    def enter(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The tokens and their mask as they are."""
        return x, mask

    def leave(self, x: Tensor) -> Tensor:
        """The tokens as they are."""
        return x


class GlobalTokens(Replacement, NoGlobalTokens):
    """`count` tokens that are the same for every example."""

    def __init__(self, count: int, dim: int):
        super().__init__()
        self.count_, self.dim = count, dim
        self.tokens = nn.Parameter(torch.zeros(1, count, dim))

    def arguments(self) -> dict[str, Any]:
        return {"count": self.count_, "dim": self.dim}

    def kernel(self, *_: object) -> str:
        return "dense"

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Normal, of the standard deviation that positions have: 1 / sqrt(dim); nothing on the meta device."""
        if not self.tokens.is_meta:
            drawn = torch.empty(self.tokens.shape).normal_(std=self.dim**-0.5, generator=generator)
            self.tokens.data.copy_(drawn)

    def enter(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, T, dim] and [B, T] -> the tokens and x, [B, count + T, dim], and the mask extended by True."""
        front = self.tokens.expand(len(x), -1, -1).to(x.dtype)
        return torch.cat((front, x), dim=1), F.pad(mask, (front.shape[1], 0), value=True) if mask is not None else None

    def leave(self, x: Tensor) -> Tensor:
        """[B, count + T, dim] -> [B, T, dim]."""
        return x[:, self.tokens.shape[1] :]
