"""A block of RWKV in the place of a Transformer's: mixing of tokens, then of channels, with a state of fixed size.

Papers: https://arxiv.org/abs/2305.13048 (RWKV-4), https://arxiv.org/abs/2404.05892 (RWKV-5 and RWKV-6).
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.cache import LayerCache, StateCache
from core.nn.replacement import Replacement
from core.nn.rwkv.channel_mix import ChannelMix
from core.nn.rwkv.mixing import Place, shifted
from core.nn.rwkv.time_mix_4 import TimeMix4
from core.nn.rwkv.time_mix_5 import TimeMix5
from core.nn.rwkv.time_mix_6 import TimeMix6

LATER_VERSIONS: dict[int, type[TimeMix5]] = {5: TimeMix5, 6: TimeMix6}


class RwkvBlock(Replacement):
    """x + time_mix(norm1(x)), then x + channel_mix(norm2(x)); the `first` block normalises the embeddings before.

    `head_dim` is of versions 5 and 6; in version 4 every channel is by itself.
    """

    causal = True

    def __init__(self, dim: int, *, version: int, hidden: int, head_dim: int, first: bool):
        super().__init__()
        self.dim, self.version, self.hidden, self.head_dim, self.first = dim, version, hidden, head_dim, first
        self.norm0 = nn.LayerNorm(dim) if first else None
        self.norm1 = nn.LayerNorm(dim)
        self.time_mix = TimeMix4(dim) if version == 4 else LATER_VERSIONS[version](dim, head_dim)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mix = ChannelMix(dim, hidden)

    def adopt(self, original: nn.Module) -> None:
        """Take over the norms."""
        self.norm1, self.norm2 = original.norm1, original.norm2  # type: ignore[assignment]

    def initialize_(self, place: Place, generator: torch.Generator | None) -> None:
        """Draw everything but the norms."""
        self.time_mix.initialize_(place, generator)
        gain = max(1.0, self.hidden / self.dim) ** 0.5 if self.version == 4 else 1.0
        self.channel_mix.initialize_(place, gain, generator)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; it needs no positions, and knows no padding."""
        assert mask is None, "a recurrent state cannot skip tokens"
        kept = cache.tensors if isinstance(cache, StateCache) else {}
        if self.norm0 is not None:
            x = self.norm0(x)
        normed = self.norm1(x)
        mixed, state = self.time_mix(normed, shifted(normed, kept.get("time token")), kept.get("state"))
        x = x + mixed
        again = self.norm2(x)
        before = shifted(again, kept.get("channel token"))
        if cache is not None:
            kept |= {"time token": normed[:, -1].clone(), "channel token": again[:, -1].clone(), "state": state}
            cache.length += x.shape[1]
        return x + self.channel_mix(again, before)

    def make_cache(self, max_length: int) -> StateCache:
        """An empty cache: of the state, and of the last token as either mixing read it."""
        return StateCache()

    def arguments(self) -> dict[str, Any]:
        names = ("dim", "version", "hidden", "head_dim", "first")
        return {name: getattr(self, name) for name in names}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
