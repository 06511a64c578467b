"""Multi-scale retention: attention without a softmax, whose heads forget at different rates.

Paper: https://arxiv.org/abs/2307.08621 (RetNet), equations 5 to 8. Head h decays by 1 - 2^(-5 - h); queries and keys
are turned by n * theta, keys scaled by d^-1/2; each head is normalised at each position (never over time), gated by
swish(x W_G) and projected. Everything between the projections is float32, so the paper's normalisers of the scores,
which only keep 16-bit numbers in range and cancel in that norm, are left out. Theta is that of the model's rotary
positions (base 10000 where it has none), with halves paired in place of neighbours; grouped keys and values are
shared by their queries.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.attention.base import Attention, absolute_positions
from core.nn.attention.linear_recurrence import CHUNK, chunkwise, parallel, recurrent
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache, StateCache
from core.nn.fresh import uniform_, xavier_uniform_
from core.nn.precision import wide, without_autocast
from core.nn.rotary import Rotary


def log_decays(heads: int, device: torch.device | None = None) -> Tensor:
    """log(1 - 2^(-5 - h)) of heads 0.. [heads], float64: in float32 the decay of head 20 would be 1."""
    return torch.log1p(-(2.0 ** (-5 - torch.arange(heads, dtype=torch.float64, device=device))))


class Retention(SwappedAttention):
    """Causal retention; values are `value_factor` times as wide as keys (the paper's models: 2)."""

    settings = ("value_factor",)
    has_further_parts = True

    def __init__(self, dim: int, heads: int, *, value_factor: int = 1, **shape: Any):
        super().__init__(dim, heads, **shape)
        if not self.causal:
            raise ValueError("retention is causal")
        self.value_factor = value_factor
        if self.rotary is None:
            self.rotary = Rotary(self.head_dim)
        width = heads * self.value_dim
        self.gate = nn.Linear(dim, width, bias=False)
        if value_factor != 1:
            self.v = nn.Linear(dim, self.kv_heads * self.value_dim, bias=self.has_bias)
            self.o = nn.Linear(width, dim, bias=self.has_bias)

    @property
    def value_dim(self) -> int:
        """Width of a head's values."""
        return self.value_factor * self.head_dim

    @classmethod
    def from_attention(cls, attention: Attention, **settings: Any) -> Self:
        """Queries and keys of the attention, and values and output where `value_factor` leaves their shapes."""
        made = cls(**attention.shape(), **settings)
        for name in ("q", "k", "v", "o") if made.value_factor == 1 else ("q", "k"):
            setattr(made, name, getattr(attention, name))
        made.rotary = attention.rotary or made.rotary
        return made.to(attention.q.weight.device, attention.q.weight.dtype).train(attention.training)

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator | None) -> None:
        """As the authors' code: Xavier's uniform distribution, for gate and values with gain 2^-2.5."""
        xavier_uniform_(self.gate.weight, generator, gain=2**-2.5)
        if self.value_factor == 1:
            return
        xavier_uniform_(self.v.weight, generator, gain=2**-2.5)
        xavier_uniform_(self.o.weight, generator)
        for linear in (self.v, self.o):
            if linear.bias is not None:
                uniform_(linear.bias, 0.0, generator)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim]; see `Attention.forward`."""
        q, k, v = (wide(part) for part in self.project(x))
        if mask is not None:
            k = k * mask[:, None, :, None]
        assert self.rotary is not None
        with without_autocast(x.device):
            q, k = self.rotary(q, k * self.head_dim**-0.5, absolute_positions(x, cache, positions))
            mixed = self.attend(q, k, v, mask, cache)
            mixed = F.layer_norm(mixed, (self.value_dim,))  # of each head, at each position
        gate = F.silu(self.gate(x))
        return self.o(gate * mixed.transpose(1, 2).flatten(2).to(gate.dtype))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        """Retention [B, heads, T, value_dim], not yet normalised; keys of masked tokens are zero."""
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        decays = log_decays(self.heads, q.device)
        if cache is None:
            return parallel(q, k, v, decays) if q.shape[2] <= CHUNK else chunkwise(q, k, v, decays)[0]
        assert isinstance(cache, StateCache)
        form = recurrent if q.shape[2] == 1 else chunkwise
        mixed, cache.tensors["state"] = form(q, k, v, decays, cache.tensors.get("state"))
        cache.length += q.shape[2]
        return mixed

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys [B, heads or kv_heads, T, head_dim], values [B, kv_heads, T, value_dim]."""
        q, k, v = super().project(x)
        return q, k, v.transpose(1, 2).flatten(2).unflatten(2, (-1, self.value_dim)).transpose(1, 2)

    def make_cache(self, max_length: int) -> StateCache:
        return StateCache()
