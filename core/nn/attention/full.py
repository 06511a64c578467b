"""Full softmax attention: every token sees every other, or every earlier one.

Paper: https://arxiv.org/abs/1706.03762.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.base import Attention
from core.nn.cache import FullCache, LayerCache


class FullAttention(Attention):
    """Softmax attention over all (earlier) tokens; compute and memory of the scores grow with T squared."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if cache is not None:
            assert isinstance(cache, FullCache)
            k, v = cache.append(k, v)
        n_queries, n_keys = q.shape[2], k.shape[2]
        allowed = mask[:, None, None, :] if mask is not None else None  # [B, 1, 1, n_keys]
        is_causal = self.causal and n_queries == n_keys and n_queries > 1
        if self.causal and n_queries > 1 and (n_queries < n_keys or allowed is not None):
            ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
            earlier = ones.tril(n_keys - n_queries)  # the last query sees all keys
            allowed, is_causal = earlier if allowed is None else earlier & allowed, False
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=is_causal, enable_gqa=self.kv_heads < self.heads
        )

    def make_cache(self, max_length: int) -> FullCache:
        return FullCache(max_length)
