"""Linear attention: a kernel phi(q) phi(k) in place of the softmax, whose sums over keys can be shared by all queries.

Paper: https://arxiv.org/abs/2006.16236, equations 5 to 12, with phi(x) = elu(x) + 1. Causal sums run chunk by chunk,
and decoding keeps S = sum phi(k)^T v and z = sum phi(k) only. Sums are float32. Rotary positions turn phi(q) and phi(k)
in the numerator and not in the denominator, which stays positive (https://arxiv.org/abs/2104.09864, equation 19).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.base import absolute_positions
from core.nn.attention.linear_recurrence import chunkwise, recurrent
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache, StateCache
from core.nn.precision import wide, without_autocast

SMALLEST = 1e-6  # of the denominator: phi underflows where features are far below zero, and all may be masked


def feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1 > 0."""
    return F.elu(x) + 1


class LinearAttention(SwappedAttention):
    """Attention linear in the length, over all tokens or over all earlier ones."""

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim]; see `Attention.forward`."""
        if not self.heads:
            return self.without_heads(x, cache)
        q, k, v = (wide(part) for part in self.project(x))
        with without_autocast(x.device):
            q, k = feature_map(q), feature_map(k)
            if mask is not None:
                k = k * mask[:, None, :, None]
            turned = (q, k)
            if self.rotary is not None:
                turned = self.rotary(q, k, absolute_positions(x, cache, positions))
            mixed = self._numerator(*turned, v, cache) / self._denominator(q, k, cache).clamp(min=SMALLEST)
        if cache is not None:
            cache.length += x.shape[1]
        return self.o(mixed.transpose(1, 2).flatten(2).to(x.dtype))

    def _numerator(self, q: Tensor, k: Tensor, v: Tensor, cache: LayerCache | None) -> Tensor:
        """phi(q) S [B, heads, T, head_dim]."""
        k, v = self._shared(k), self._shared(v)
        if not self.causal:
            return q @ (k.transpose(-2, -1) @ v)
        steady = torch.zeros(q.shape[1], dtype=torch.float64, device=q.device)
        if cache is None:
            return chunkwise(q, k, v, steady)[0]
        assert isinstance(cache, StateCache)
        form = recurrent if q.shape[2] == 1 else chunkwise
        mixed, cache.tensors["sum"] = form(q, k, v, steady, cache.tensors.get("sum"))
        return mixed

    def _denominator(self, q: Tensor, k: Tensor, cache: LayerCache | None) -> Tensor:
        """phi(q) z [B, heads, T, 1]."""
        if not self.causal:
            return q @ self._shared(k.sum(dim=2, keepdim=True)).transpose(-2, -1)
        sums = k.cumsum(dim=2)
        if cache is not None:
            assert isinstance(cache, StateCache)
            sums = sums + cache.tensors.get("keys", 0.0)
            cache.tensors["keys"] = sums[:, :, -1:].clone()
        return (q * self._shared(sums)).sum(dim=-1, keepdim=True)

    def _shared(self, x: Tensor) -> Tensor:
        """Of keys and values [B, kv_heads, ...] one for each query head."""
        return x.repeat_interleave(self.heads // self.kv_heads, dim=1)

    def make_cache(self, max_length: int) -> StateCache:
        return StateCache()
