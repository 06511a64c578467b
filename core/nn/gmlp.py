"""gMLP's block: one network whose hidden units are gated by a linear map over the tokens, instead of attention.

Paper: https://arxiv.org/abs/2105.08050, section 2. Without the paper's optional tiny attention (aMLP).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.cache import LayerCache
from core.nn.fresh import uniform_, xavier_uniform_
from core.nn.replacement import Replacement

NEAR_ZERO = 1e-3  # what a row of the spatial weights sums to at most, at first


class GateCache:
    """The gates' normalised inputs of the tokens so far: the map over tokens wants them all again."""

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.length = 0
        self.units: Tensor | None = None  # [B, max_length, units]

    def append(self, units: Tensor) -> Tensor:
        """Add those of T tokens [B, T, units]; all so far."""
        end = self.length + units.shape[1]
        if end > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens, not {end}")
        if self.units is None:
            self.units = units.new_empty(len(units), self.max_length, units.shape[2])
        self.units[:, self.length : end] = units
        self.length = end
        return self.units[:, :end]


class SpatialGate(nn.Module):
    """u * (W norm(v) + b), where W maps tokens to tokens; lower triangular where it is causal.

    W is not an nn.Linear: its zeros are structural, and shorter texts use only its corner.
    """

    def __init__(self, units: int, tokens: int, *, causal: bool):
        super().__init__()
        self.tokens, self.causal = tokens, causal
        self.norm = nn.LayerNorm(units)
        self.spatial_weight = nn.Parameter(torch.zeros(tokens, tokens))
        self.spatial_bias = nn.Parameter(torch.ones(tokens))

    def forward(self, u: Tensor, v: Tensor, mask: Tensor | None, cache: GateCache | None) -> Tensor:
        """Gate u by v, both [B, T, units]; v of tokens whose `mask` [B, T] is False counts as zero."""
        units = self.norm(v)
        if mask is not None:
            units = units * mask[:, :, None]
        start = cache.length if cache is not None else 0
        end = start + u.shape[1]
        if end > self.tokens:
            raise ValueError(f"the spatial gate was made for {self.tokens} tokens, not {end}")
        if cache is not None:
            units = cache.append(units)
        weight = self.spatial_weight[start:end, :end]
        if self.causal:
            weight = weight.tril(start)
        return u * (weight @ units + self.spatial_bias[start:end, None])


class GmlpBlock(Replacement):
    """x + down(gate(gelu(up(norm1(x))))); `hidden` is up's width, half of which gates the other half."""

    limits_length = True

    def __init__(self, dim: int, *, hidden: int, tokens: int, causal: bool):
        super().__init__()
        self.dim, self.hidden, self.tokens, self.causal = dim, hidden, tokens, causal
        self.norm1 = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden)
        self.gate = SpatialGate(hidden // 2, tokens, causal=causal)
        self.down = nn.Linear(hidden // 2, dim)

    def adopt(self, original: nn.Module) -> None:
        """Take over the first norm; the second has nothing to stand before."""
        self.norm1 = original.norm1  # type: ignore[assignment]

    def initialize_(self, generator: torch.Generator | None) -> None:
        """The map over tokens near zero and its bias one, so that at first every token is by itself (section 2.1)."""
        uniform_(self.gate.spatial_weight, NEAR_ZERO / self.tokens, generator)
        for linear in (self.up, self.down):
            xavier_uniform_(linear.weight, generator)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """[B, T, dim] -> [B, T, dim], T <= `tokens`; places come from the map, not from `positions`."""
        assert cache is None or (isinstance(cache, GateCache) and self.causal)
        u, v = F.gelu(self.up(self.norm1(x))).chunk(2, dim=-1)
        return x + self.down(self.gate(u, v, mask, cache))

    def make_cache(self, max_length: int) -> GateCache:
        """An empty cache for decoding up to `max_length` tokens."""
        return GateCache(min(max_length, self.tokens))

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("dim", "hidden", "tokens", "causal")}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
