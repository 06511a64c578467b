"""Sparse QKV: attention whose queries, keys and values are convolved from one multiplicative layer's output.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.2); what it leaves open is as in the authors'
code (trax, MultiplicativeConvCausalAttention). The layer's output is an image of tokens x modules with
dim / n_modules channels. It is padded causally along the tokens and symmetrically along the modules. There is no
output projection.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.attention.base import absolute_positions
from core.nn.attention.full import full_attention
from core.nn.cache import FullCache, LayerCache
from core.nn.multiplicative import MultiplicativeLinear
from core.nn.replacement import Replacement
from core.nn.rotary import Rotary

KERNEL = 3  # tokens, and for queries and keys modules too


class SparseQkvCache(FullCache):
    """All keys and values, and the last rows of the image for the next tokens' convolutions."""

    def __init__(self, max_length: int):
        super().__init__(max_length)
        self.rows: Tensor | None = None  # [B, channels, KERNEL - 1, n_modules]

    def preceded(self, image: Tensor) -> Tensor:
        """The image of new tokens [B, channels, T, n_modules] below the rows before them; its own last are kept."""
        rows = _causally_padded(image) if self.rows is None else torch.cat((self.rows, image), dim=2)
        self.rows = rows[:, :, 1 - KERNEL :].clone()  # not a view that keeps a whole prompt
        return rows


def _causally_padded(image: Tensor) -> Tensor:
    return F.pad(image, (0, 0, KERNEL - 1, 0))


class SparseQkvAttention(Replacement):
    """Causal softmax attention of a multiplicative layer and convolutions; `rotary` is the base of rotary positions."""

    causal = True

    def __init__(self, dim: int, heads: int, *, n_modules: int, rotary: float | None = None):
        super().__init__()
        self.dim, self.heads, self.n_modules = dim, heads, n_modules
        channels = dim // n_modules
        self.shared = MultiplicativeLinear(dim, dim, n_modules)
        self.qk = nn.Conv2d(channels, 2 * channels, KERNEL)  # channels of the query, then of the key
        self.v = nn.Conv2d(channels, channels, (KERNEL, 1))
        self.rotary = Rotary(dim // heads, rotary) if rotary is not None else None

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator | None) -> None:
        """Fresh weights as in the authors' code."""
        self.shared.initialize_(generator)
        for weight in (*self.qk.weight.chunk(2), self.v.weight):
            nn.init.xavier_uniform_(weight, generator=generator)
        for conv in (self.qk, self.v):
            assert conv.bias is not None
            nn.init.normal_(conv.bias, std=1e-6, generator=generator)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Mix tokens x [B, T, dim] with those before them; the keywords are those of `Attention`, without a mask."""
        assert mask is None, "causal models have no padding to mask"
        assert cache is None or isinstance(cache, SparseQkvCache)
        q, k, v = self.project(x, cache)
        if self.rotary is not None:
            q, k = self.rotary(q, k, absolute_positions(x, cache, positions))
        if cache is not None:
            k, v = cache.append(k, v)
        return full_attention(q, k, v, causal=True).transpose(1, 2).flatten(2)

    def project(self, x: Tensor, cache: SparseQkvCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, T, head_dim] of x [B, T, dim]."""
        image = self.shared(x).unflatten(2, (self.n_modules, -1)).permute(0, 3, 1, 2)  # [B, channels, T, n_modules]
        rows = _causally_padded(image) if cache is None else cache.preceded(image)
        q, k = self.qk(F.pad(rows, (KERNEL // 2, KERNEL // 2))).chunk(2, dim=1)
        return self._split(q), self._split(k), self._split(self.v(rows))

    def _split(self, image: Tensor) -> Tensor:
        tokens = image.permute(0, 2, 3, 1).flatten(2)  # [B, T, dim], a module's channels beside one another
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def prepare(self) -> None:
        """The image has its channels last, and so have the convolutions' weights then: a quarter less time a token."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make_cache(self, max_length: int) -> SparseQkvCache:
        """An empty cache for decoding up to `max_length` tokens."""
        return SparseQkvCache(max_length)

    def arguments(self) -> dict[str, Any]:
        rotary = self.rotary.base if self.rotary is not None else None
        return {"dim": self.dim, "heads": self.heads, "n_modules": self.n_modules, "rotary": rotary}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
