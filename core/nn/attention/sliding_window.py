"""Sliding-window attention: a token sees only its nearest neighbours, exactly and in linear time.

Paper: https://arxiv.org/abs/2004.05150 (Longformer). Here without global tokens: causal, token i sees
i - window < j <= i; else |i - j| < window. Tokens are cut into blocks of `window`, and each block of
queries is multiplied with its own and the neighbouring blocks of keys, so that no T x T matrix is made.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache, RingCache


def _neighbourhoods(x: Tensor, causal: bool) -> Tensor:
    """Blocks [B, n, window, ...], each joined with the one before (and after, unless causal): [B, n, s, ...]."""
    nothing = torch.zeros_like(x[:, :1])
    parts = [torch.cat((nothing, x[:, :-1]), dim=1), x]
    if not causal:
        parts.append(torch.cat((x[:, 1:], nothing), dim=1))
    return torch.cat(parts, dim=2)


def _band(window: int, causal: bool, device: torch.device) -> Tensor:
    """Which keys of its neighbourhood a query of a block sees: [window, 2 or 3 * window], True = seen."""
    query = torch.arange(window, device=device)[:, None]
    key = torch.arange(-window, window if causal else 2 * window, device=device)[None, :]
    return (key <= query) & (key > query - window) if causal else (key - query).abs() < window


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, *, causal: bool, mask: Tensor | None = None
) -> Tensor:
    """Softmax attention within the window: [B, heads, T, head_dim] of q, and k and v [B, kv_heads, T, head_dim].

    `mask` [B, T] is True where a token may be seen. Compute and memory are linear in T.
    """
    batch, heads, length = q.shape[:3]
    enable_gqa = k.shape[1] < heads
    n_blocks = -(-length // window)

    def blocks(x: Tensor) -> Tensor:  # [B, h, T, head_dim] -> [B, n, window, h, head_dim]
        padded = F.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, n_blocks * window - length))
        return padded.unflatten(1, (n_blocks, window))

    def folded(x: Tensor) -> Tensor:  # [B, n, s, h, head_dim] -> [B * n, h, s, head_dim]
        return x.flatten(0, 1).transpose(1, 2)

    seen = torch.ones(1, length, dtype=torch.bool, device=q.device) if mask is None else mask.bool()
    seen = F.pad(seen, (0, n_blocks * window - length)).unflatten(1, (n_blocks, window))
    seen = _neighbourhoods(seen, causal)[:, :, None, :] & _band(window, causal, q.device)  # [B or 1, n, window, s]
    seen = seen.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]  # [B * n, 1, window, s]
    mixed = F.scaled_dot_product_attention(
        folded(blocks(q)),
        folded(_neighbourhoods(blocks(k), causal)),
        folded(_neighbourhoods(blocks(v), causal)),
        attn_mask=seen,
        enable_gqa=enable_gqa,
    )  # [B * n, heads, window, head_dim]
    mixed = mixed.unflatten(0, (batch, n_blocks)).transpose(1, 2).flatten(2, 3)  # [B, heads, n * window, head_dim]
    return mixed[:, :, :length]


class SlidingWindowAttention(SwappedAttention):
    """Softmax attention over the `window` nearest tokens; equals full attention where T <= window."""

    settings = ("window",)

    def __init__(self, dim: int, heads: int, *, window: int, **shape: Any):
        super().__init__(dim, heads, **shape)
        self.window = window

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if cache is not None:
            assert isinstance(cache, RingCache)
            assert mask is None
            return self._attend_cached(q, k, v, cache)
        if q.shape[2] > self.window:
            return windowed_attention(q, k, v, self.window, causal=self.causal, mask=mask)
        return self._attend_all(q, k, v, mask)

    def _attend_cached(self, q: Tensor, k: Tensor, v: Tensor, cache: RingCache) -> Tensor:
        past = cache.ordered() if q.shape[2] > 1 else None
        keys, values = cache.append(k, v)
        if q.shape[2] == 1:  # softmax does not mind the order of the slots
            return F.scaled_dot_product_attention(q, keys, values, enable_gqa=self.kv_heads < self.heads)
        n_past = past[0].shape[2] if past is not None else 0
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        q = F.pad(q, (0, 0, n_past, 0))  # queries of the past, thrown away again
        return windowed_attention(q, k, v, self.window, causal=True)[:, :, n_past:]

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        allowed = mask[:, None, None, :] if mask is not None else None  # [B, 1, 1, T]
        if self.causal and allowed is not None:
            allowed = allowed & torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
        is_causal = self.causal and mask is None
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=is_causal, enable_gqa=self.kv_heads < self.heads
        )

    def make_cache(self, max_length: int) -> RingCache:
        return RingCache(self.window)
