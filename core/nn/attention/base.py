"""What every attention of the reference Transformer shares: its projections, heads and rotary positions."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from core.nn.cache import LayerCache
from core.nn.dynamic_int8_linear import DynamicInt8Linear, shared_input
from core.nn.rotary import Rotary


def absolute_positions(x: Tensor, cache: LayerCache | None, positions: Tensor | None) -> Tensor:
    """Positions [T] of tokens x [B, T, dim]: the given ones, or those that follow what the cache has seen."""
    if positions is not None:
        return positions
    start = cache.length if cache is not None else 0
    return torch.arange(start, start + x.shape[1], device=x.device)


class Attention(nn.Module):
    """Multi-head attention with separate q, k, v, o linears; `kv_heads` < `heads` shares keys among queries (GQA).

    `rotary` is the base of rotary positions, None where positions come from elsewhere.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = False,
        rotary: float | None = None,
        bias: bool = True,
    ):
        super().__init__()
        kv_heads = kv_heads or heads
        self.head_dim = head_dim or dim // heads
        self.causal = causal
        self.has_bias = bias
        self.q = nn.Linear(dim, heads * self.head_dim, bias=bias)
        self.k = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.v = nn.Linear(dim, kv_heads * self.head_dim, bias=bias)
        self.o = nn.Linear(heads * self.head_dim, dim, bias=bias)
        self.rotary = Rotary(self.head_dim, rotary) if rotary is not None else None

    def shape(self) -> dict[str, Any]:
        """Keyword arguments that construct an attention of the same projections."""
        return {
            "dim": self.dim,
            "heads": max(1, self.heads),  # torch warns of linears without rows; an artifact tells their shapes
            "kv_heads": max(1, self.kv_heads),
            "head_dim": self.head_dim,
            "causal": self.causal,
            "rotary": self.rotary.base if self.rotary is not None else None,
            "bias": self.has_bias,
        }

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.q.in_features

    @property
    def heads(self) -> int:
        """Query heads, as many as the projection has: pruning leaves fewer."""
        return self.q.out_features // self.head_dim

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.k.out_features // self.head_dim

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim].

        `mask` [B, T] is True if a token may be seen; `cache` is this layer's own (`make_cache`);
        `positions` [T] are absolute and needed only by rotary positions: 0..T-1 when left out.
        """
        if not self.heads:
            return self.without_heads(x, cache)
        q, k, v = self.project(x)
        if self.rotary is not None:
            q, k = self.rotary(q, k, absolute_positions(x, cache, positions))
        mixed = self.attend(q, k, v, mask, cache)  # [B, heads, T, head_dim]
        return self.o(mixed.transpose(1, 2).flatten(2))

    def without_heads(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        """What an attention gives whose heads are all pruned: the output's bias."""
        if cache is not None:
            cache.length += x.shape[1]
        return self.o(x[..., :0])

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, T, head_dim], keys and values [B, kv_heads, T, head_dim] of x [B, T, dim]."""
        with shared_input(x) if isinstance(self.q, DynamicInt8Linear) else nullcontext():
            return self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        """The mixing itself: [B, heads, T, head_dim] from queries, keys and values of as many tokens."""
        raise NotImplementedError(type(self).__name__)

    def make_cache(self, max_length: int) -> LayerCache:
        """An empty cache for decoding up to `max_length` tokens."""
        raise NotImplementedError(type(self).__name__)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_dim)).transpose(1, 2)
