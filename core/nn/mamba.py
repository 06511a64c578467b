"""Mamba: a gated selective state space in the place of attention, or of attention and feed-forward network alike.

Paper: https://arxiv.org/abs/2312.00752, section 3.4. Two Mambas of expand 2 have the 12 dim^2 weights of an attention
and a feed-forward network of four times the width, so that the paper puts two of them in a Transformer block's place.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.cache import LayerCache, StateCache
from core.nn.fresh import uniform_
from core.nn.replacement import Replacement
from core.nn.selective_scan import SelectiveScan


class Mamba(Replacement):
    """Project up, mix neighbours by a causal convolution, scan, gate, project down; keeps no order of its own else.

    `kernel_size` is the convolution's; the projection of delta has the rank dim / 16, rounded up.
    """

    causal = True

    def __init__(self, dim: int, *, n_states: int = 16, expand: int = 2, kernel_size: int = 4):
        super().__init__()
        self.dim, self.n_states, self.expand, self.kernel_size = dim, n_states, expand, kernel_size
        channels = expand * dim
        self.rank = math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * channels, bias=False)
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        self.x_proj = nn.Linear(channels, self.rank + 2 * n_states, bias=False)
        self.dt_proj = nn.Linear(self.rank, channels, bias=False)  # its bias is the scan's
        self.scan = SelectiveScan(channels, n_states)
        self.out_proj = nn.Linear(channels, dim, bias=False)

    def initialize_(self, generator: torch.Generator | None, n_layers: int = 1) -> None:
        """As the authors' code, what is added to the residual stream scaled down by the number of Mambas."""
        for linear in (self.in_proj, self.x_proj):
            uniform_(linear.weight, linear.in_features**-0.5, generator)
        uniform_(self.out_proj.weight, (self.out_proj.in_features * n_layers) ** -0.5, generator)
        uniform_(self.dt_proj.weight, self.rank**-0.5, generator)
        for parameter in (self.conv.weight, self.conv.bias):
            assert parameter is not None
            uniform_(parameter, self.kernel_size**-0.5, generator)
        self.scan.initialize_(generator)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim]; it needs no positions, and knows no padding."""
        assert mask is None, "a recurrent state cannot skip tokens"
        kept = cache.tensors if isinstance(cache, StateCache) else {}
        inner, gate = self.in_proj(x).chunk(2, dim=-1)  # [B, T, channels]
        window = kept.get("window")
        if window is None:
            window = inner.new_zeros(inner.shape[0], self.kernel_size - 1, inner.shape[2])
        inner = torch.cat((window, inner), dim=1)
        if cache is not None:
            kept["window"] = inner[:, x.shape[1] :].clone()
            cache.length += x.shape[1]
        inner = F.silu(self.conv(inner.transpose(-2, -1)).transpose(-2, -1))
        delta, B, C = self.x_proj(inner).split((self.rank, self.n_states, self.n_states), dim=-1)
        mixed, kept["state"] = self.scan(inner, self.dt_proj(delta), B, C, kept.get("state"))
        return self.out_proj(mixed.to(gate.dtype) * F.silu(gate))

    def make_cache(self, max_length: int) -> StateCache:
        """An empty cache: of the last inputs of the convolution, and of the state."""
        return StateCache()

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim, "n_states": self.n_states, "expand": self.expand, "kernel_size": self.kernel_size}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


class MambaBlock(Replacement):
    """x + mamba1(norm1(x)), then x + mamba2(norm2(x)): a Transformer's block with its norms, and nothing else of it."""

    def __init__(self, dim: int, **settings: Any):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mamba1, self.mamba2 = Mamba(dim, **settings), Mamba(dim, **settings)

    def adopt(self, original: nn.Module) -> None:
        """Take over the norms."""
        self.norm1, self.norm2 = original.norm1, original.norm2  # type: ignore[assignment]

    def initialize_(self, generator: torch.Generator | None, n_layers: int = 1) -> None:
        """Both Mambas; see `Mamba.initialize_`."""
        for mamba in (self.mamba1, self.mamba2):
            mamba.initialize_(generator, n_layers)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; see `Mamba.forward`."""
        first, second = (cache.first, cache.second) if isinstance(cache, PairCache) else (None, None)
        x = x + self.mamba1(self.norm1(x), mask=mask, cache=first)
        return x + self.mamba2(self.norm2(x), mask=mask, cache=second)

    def make_cache(self, max_length: int) -> "PairCache":
        """An empty cache of each Mamba."""
        return PairCache()

    def arguments(self) -> dict[str, Any]:
        return self.mamba1.arguments()

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


class PairCache:
    """The states of a block with two recurrent layers."""

    def __init__(self) -> None:
        self.first, self.second = StateCache(), StateCache()

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.second.length
