"""Full softmax attention: every token sees every other, or every earlier one.

Paper: https://arxiv.org/abs/1706.03762.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.base import Attention
from core.nn.cache import FullCache, LayerCache


def full_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    """Softmax attention: [B, heads, T, head_dim] of q, and k and v [B, kv_heads, n_keys, head_dim], n_keys >= T.

    Causal queries are the last T tokens. `mask` [B, n_keys] is True if a token may be seen.
    """
    n_queries, n_keys = q.shape[2], k.shape[2]
    allowed = mask[:, None, None, :] if mask is not None else None  # [B, 1, 1, n_keys]
    is_causal = bool(causal and n_queries == n_keys and n_queries > 1)  # tracing makes tensors of comparisons
    if causal and n_queries > 1 and (n_queries < n_keys or allowed is not None):
        ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
        earlier = ones.tril(n_keys - n_queries)  # the last query sees all keys
        allowed, is_causal = earlier if allowed is None else earlier & allowed, False
    return shared_keys_attention(q, k, v, allowed, is_causal=is_causal)


def shared_keys_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, *, is_causal: bool = False
) -> Tensor:
    """Torch's own, of q [B, heads, T, d] over k and v [B, kv_heads, n, d]; `allowed` is True if a key is seen."""
    is_grouped = bool(k.shape[1] < q.shape[1])  # tracing makes a tensor of it
    if is_grouped and torch.onnx.is_in_onnx_export():  # whose attention knows no shared keys
        k, v = (x.repeat_interleave(int(q.shape[1] // x.shape[1]), dim=1) for x in (k, v))
        is_grouped = False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=is_causal, enable_gqa=is_grouped)


class FullAttention(Attention):
    """Softmax attention over all (earlier) tokens; compute and memory of the scores grow with T squared."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if cache is not None:
            assert isinstance(cache, FullCache)
            k, v = cache.append(k, v)
        return full_attention(q, k, v, causal=self.causal, mask=mask)

    def make_cache(self, max_length: int) -> FullCache:
        return FullCache(max_length)
