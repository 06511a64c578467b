"""Full attention of the reference Transformer over keys and values in a few bits.

Paper: https://arxiv.org/abs/2402.02750 (KIVI).
"""

from typing import Any

import torch
from torch import Tensor

from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache
from core.nn.hadamard import Hadamard
from core.nn.kv_cache import KvFormat, QuantizedCache, quantized_attention

NO_ONNX = "how many keys are packed depends on the number of tokens"


class QuantizedKvAttention(SwappedAttention):
    """Causal softmax attention whose keys and values are rounded as a quantized cache keeps them; see `KvFormat`.

    `rotate` multiplies queries and keys by a Hadamard matrix, which spreads outliers of a channel over all of them.
    """

    settings = ("bits", "group_size", "window", "rotate")
    no_onnx = NO_ONNX

    def __init__(
        self, dim: int, heads: int, *, bits: int, group_size: int, window: int, rotate: bool = False, **shape: Any
    ):
        super().__init__(dim, heads, **shape)
        self.bits, self.group_size, self.window, self.rotate = bits, group_size, window, rotate
        self.form = KvFormat(bits, group_size, window)
        self.rotation = Hadamard(self.head_dim) if rotate else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if self.rotation is not None:
            q, k = self.rotation(q), self.rotation(k)
        if cache is not None:
            assert isinstance(cache, QuantizedCache)
            k, v = cache.append(k, v)
        return quantized_attention(q, k, v, self.form, allowed=None if mask is None else mask[:, None, None].bool())

    def make_cache(self, max_length: int) -> QuantizedCache:
        return QuantizedCache(self.form)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> None:
        """None: the cache is unpacked at every token."""
