"""What decoding remembers of the tokens before: one object a layer, made by the layer's attention."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class LayerCache(Protocol):
    """Whatever an attention keeps (keys and values, a recurrent state); all know how far they have come."""

    length: int  # tokens seen


class FullCache:
    """All keys and values, in buffers that grow by doubling and never past `max_length`."""

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.length = 0
        self.keys: Tensor | None = None  # [B, kv_heads, capacity, head_dim]
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T tokens [B, kv_heads, T, head_dim]; all so far, oldest first."""
        end = self.length + keys.shape[2]
        if end > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} tokens, not {end}")
        self.keys, self.values = self._grown(self.keys, keys, end), self._grown(self.values, values, end)
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, buffer: Tensor | None, like: Tensor, end: int) -> Tensor:
        if buffer is not None and buffer.shape[2] >= end:
            return buffer
        capacity = min(max(2 * end, 64), self.max_length)
        grown = like.new_empty(*like.shape[:2], capacity, like.shape[3])
        if buffer is not None:
            grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown


class RingCache:
    """The keys and values of the last `window` tokens; the token at position p lies in slot p mod window."""

    def __init__(self, window: int):
        self.window = window
        self.length = 0
        self.keys: Tensor | None = None  # [B, kv_heads, window, head_dim]
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T tokens; those that remain, in the order of their slots."""
        if self.keys is None or self.values is None:
            shape = (*keys.shape[:2], self.window, keys.shape[3])
            self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
        end = self.length + keys.shape[2]
        start = max(self.length, end - self.window)
        slots = torch.arange(start, end, device=keys.device) % self.window
        self.keys[:, :, slots] = keys[:, :, start - end :]
        self.values[:, :, slots] = values[:, :, start - end :]
        self.length = end
        filled = min(end, self.window)
        return self.keys[:, :, :filled], self.values[:, :, :filled]

    def ordered(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values [B, kv_heads, min(length, window), head_dim], oldest first; None while empty."""
        if self.keys is None or self.values is None:
            return None
        first = max(0, self.length - self.window)
        slots = torch.arange(first, self.length, device=self.keys.device) % self.window
        return self.keys[:, :, slots], self.values[:, :, slots]


class StateCache:
    """A recurrent state: tensors by name, whose sizes do not depend on how many tokens they have seen."""

    def __init__(self) -> None:
        self.length = 0
        self.tensors: dict[str, Tensor] = {}  # [B, ...]; empty before the first token


Cache = Sequence[LayerCache]  # of a model: one a block
