"""Sliding-window attention: a token sees only its nearest neighbours, exactly and in linear time.

Paper: https://arxiv.org/abs/2004.05150 (Longformer). Causal, token i sees i - window < j <= i; else |i - j| < window,
and `global_tokens` in front of the others see all and are seen by all. They share the others' projections, where
Longformer has further ones. Tokens are cut into blocks, and each block of queries is multiplied with those around
it, so that no T x T matrix is made.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.block_layout import BlockLayout, band, band_rows, block_of, global_rows
from core.nn.attention.block_sparse import block_sparse_attention
from core.nn.attention.full import full_attention, shared_keys_attention
from core.nn.attention.pattern import BlockRows
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache, RingCache


def windowed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    *,
    causal: bool,
    mask: Tensor | None = None,
    n_globals: int = 0,
) -> Tensor:
    """Softmax attention within the window: [B, heads, T, head_dim] of q, and k and v [B, kv_heads, n_keys, head_dim].

    n_keys >= T: causal queries are those of the last T tokens. `mask` [B, n_keys] is True if a token may be seen.
    The first `n_globals` tokens see all and are seen by all. Compute and memory are linear in n_keys.
    """
    n_past = int(k.shape[2]) - int(q.shape[2])
    if int(k.shape[2]) - n_globals <= window:
        return full_attention(q, k, v, causal=causal, mask=mask)
    if int(q.shape[2]) <= n_past:
        return _attend_to_past(q, k, v, window, mask)
    if n_past:
        q = F.pad(q, (0, 0, n_past, 0))  # queries of the past, thrown away again
        return windowed_attention(q, k, v, window, causal=causal, mask=mask)[:, :, n_past:]
    layout = BlockLayout(block_of(window), n_globals, int(q.shape[2]) - n_globals)
    pattern = window_pattern(layout, window, causal=causal, device=q.device)
    seen = layout.seen(mask, q)
    return layout.tokens(
        block_sparse_attention(layout.blocks(q), layout.blocks(k), layout.blocks(v), pattern, seen=seen)
    )


def _attend_to_past(q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None) -> Tensor:
    """The few last tokens' causal attention: T x min(n_keys, window + T - 1) scores."""
    reached = min(int(k.shape[2]), window + int(q.shape[2]) - 1)
    k, v = k[:, :, -reached:], v[:, :, -reached:]
    allowed = mask[:, None, None, -reached:] if mask is not None else None
    if q.shape[2] > 1:
        key = torch.arange(reached, device=q.device)
        query = key[-q.shape[2] :, None]
        inside = (key <= query) & (key > query - window)
        allowed = inside if allowed is None else inside & allowed
    return shared_keys_attention(q, k, v, allowed)


def window_pattern(layout: BlockLayout, window: int, *, causal: bool, device: torch.device) -> list[BlockRows]:
    """Who sees whom: blocks around a block, under the band; global blocks see all and are seen by all."""
    inside = band(window, layout.block, causal=causal, device=device)
    front = inside.new_ones(layout.block, layout.global_blocks * layout.block)
    near = [
        BlockRows(part.rows, part.keys, seen=torch.cat((front, inside[:, columns]), dim=1))
        for part, columns in band_rows(layout, window, causal=causal, device=device)
    ]
    return near + global_rows(layout, device)


class SlidingWindowAttention(SwappedAttention):
    """Softmax attention over the `window` nearest tokens; equals full attention where T <= window.

    The first `global_tokens` of the tokens it is given are global; not in a causal model.
    """

    settings = ("window", "global_tokens")

    def __init__(self, dim: int, heads: int, *, window: int, global_tokens: int = 0, **shape: Any):
        super().__init__(dim, heads, **shape)
        self.window = window
        self.global_tokens = global_tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if cache is not None:
            assert isinstance(cache, RingCache)
            assert mask is None
            return self._attend_cached(q, k, v, cache)
        return windowed_attention(q, k, v, self.window, causal=self.causal, mask=mask, n_globals=self.global_tokens)

    def _attend_cached(self, q: Tensor, k: Tensor, v: Tensor, cache: RingCache) -> Tensor:
        past = cache.ordered() if q.shape[2] > 1 else None
        keys, values = cache.append(k, v)
        if q.shape[2] == 1:  # softmax does not mind the order of the slots
            return shared_keys_attention(q, keys, values)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        return windowed_attention(q, k, v, self.window, causal=True)

    def make_cache(self, max_length: int) -> RingCache:
        return RingCache(self.window)
