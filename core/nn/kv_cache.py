"""Keys and values of decoding in 8, 4 or 2 bits, with the last tokens in full precision.

Paper: https://arxiv.org/abs/2402.02750 (KIVI, section 3.3). Keys have a grid for each channel and group of tokens,
values for each token and group of channels. Tokens are packed a group at a time, once the whole group is older than the
window. What a token attends to is the same however the text was cut into pieces: all of it at once, a prompt and then
single tokens, or with no cache at all. (KIVI's prompt attends to itself in full precision.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from core.nn.attention.full import shared_keys_attention
from core.nn.bitpack import pack_bits, unpack_bits
from core.nn.precision import HALF_DTYPES


class Rounded(NamedTuple):
    """Rows as `low + scale * code`: codes uint8 [..., n], or [..., bytes] when packed; lows and scales [..., 1]."""

    codes: Tensor
    lows: Tensor
    scales: Tensor


@dataclass(frozen=True)
class KvFormat:
    """How keys and values are stored: bits of each, tokens or channels that share a grid, tokens in full precision."""

    bits: int
    group_size: int  # a multiple of 8
    window: int

    def n_packed(self, n_tokens: int) -> int:
        """How many of so many tokens, the oldest, are packed."""
        return max(0, (n_tokens - self.window) // self.group_size * self.group_size)

    def segments(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Queries at positions first..end - 1 as (start, stop, number of packed tokens that they see)."""
        while first < end:
            packed = self.n_packed(first + 1)
            stop = min(end, packed + self.group_size + self.window - 1)
            yield first, stop, packed
            first = stop

    def bytes_per_token(self, kv_heads: int, head_dim: int, dtype: torch.dtype) -> float:
        """Bytes that a packed token takes in one layer, grids included; the last tokens take those of `dtype`."""
        grid = 2 * _stored(dtype).itemsize
        channels = self.value_group(head_dim)
        return kv_heads * head_dim * (2 * self.bits / 8 + grid / self.group_size + grid / channels)

    def value_group(self, head_dim: int) -> int:
        """Channels of a value that share a grid: as many as the group size allows and the head divides into."""
        return max(n for n in range(1, min(self.group_size, head_dim) + 1) if head_dim % n == 0)

    def key_rows(self, keys: Tensor) -> Tensor:
        """Whole groups of keys [B, kv_heads, T, head_dim] as rows [B, kv_heads, T / group, head_dim, group]."""
        return keys.unflatten(2, (-1, self.group_size)).transpose(-1, -2)

    def value_rows(self, values: Tensor) -> Tensor:
        """Values [B, kv_heads, T, head_dim] as rows [B, kv_heads, T, head_dim / group, group]."""
        return values.unflatten(3, (-1, self.value_group(values.shape[3])))

    def rounded(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What packing makes of whole groups of tokens."""
        near_keys, near_values = (
            _decode(_encode(rows, self.bits)).to(rows.dtype) for rows in (self.key_rows(keys), self.value_rows(values))
        )
        return near_keys.transpose(-1, -2).flatten(2, 3), near_values.flatten(3)


class QuantizedCache:
    """Packed keys and values, and the last tokens' as they are."""

    def __init__(self, form: KvFormat):
        self.form = form
        self.length = 0
        self.recent: tuple[Tensor, Tensor] | None = None  # keys and values [B, kv_heads, T, head_dim]
        self.packed: tuple[Rounded, Rounded] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T tokens [B, kv_heads, T, head_dim]; all so far, oldest first.

        Those returned are rounded as far as they were packed before this call.
        """
        if self.recent is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.recent, (keys, values), strict=True))
        n_before = self.form.n_packed(self.length)
        seen = (keys, values)
        if self.packed is not None:
            past = self._unpacked(self.packed, keys)
            seen = (torch.cat((past[0], keys), dim=2), torch.cat((past[1], values), dim=2))
        self.length = n_before + keys.shape[2]
        n_leaving = self.form.n_packed(self.length) - n_before
        if n_leaving:
            self._pack(keys[:, :, :n_leaving], values[:, :, :n_leaving])
        self.recent = (keys[:, :, n_leaving:].clone(), values[:, :, n_leaving:].clone())
        return seen

    def map_(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change every tensor along the batch, for beam search."""
        if self.recent is not None:
            self.recent = (change(self.recent[0]), change(self.recent[1]))
        if self.packed is not None:
            keys, values = (Rounded(*map(change, part)) for part in self.packed)
            self.packed = (keys, values)
        return self

    def _pack(self, keys: Tensor, values: Tensor) -> None:
        made = []
        for rows in (self.form.key_rows(keys), self.form.value_rows(values)):
            codes, lows, scales = _encode(rows, self.form.bits)
            made.append(Rounded(pack_bits(codes, self.form.bits), lows, scales))
        if self.packed is not None:
            made = [
                Rounded(*(torch.cat(pair, dim=2) for pair in zip(old, new, strict=True)))
                for old, new in zip(self.packed, made, strict=True)
            ]
        self.packed = (made[0], made[1])

    def _unpacked(self, packed: tuple[Rounded, Rounded], like: Tensor) -> tuple[Tensor, Tensor]:
        sizes = (self.form.group_size, self.form.value_group(like.shape[3]))
        keys, values = (
            _decode(part._replace(codes=unpack_bits(part.codes, self.form.bits, size))).to(like.dtype)
            for part, size in zip(packed, sizes, strict=True)
        )
        return keys.transpose(-1, -2).flatten(2, 3), values.flatten(3)


def quantized_attention(q: Tensor, k: Tensor, v: Tensor, form: KvFormat, *, allowed: Tensor | None = None) -> Tensor:
    """Causal softmax attention of the last T tokens: [B, heads, T, head_dim] of q, and k, v [B, kv_heads, n, head_dim].

    Of the keys and values, those that are packed before these T tokens come are rounded already (`append`). `allowed`
    [B, 1, T or 1, n] is True where a key may be seen, or a term to add to the scores; the future is hidden anyway.
    """
    first, end = k.shape[2] - q.shape[2], k.shape[2]
    done, last = form.n_packed(first), form.n_packed(end)
    near_k, near_v = k[:, :, :last], v[:, :, :last]
    if last > done:
        made = form.rounded(k[:, :, done:last], v[:, :, done:last])
        near_k, near_v = torch.cat((k[:, :, :done], made[0]), dim=2), torch.cat((v[:, :, :done], made[1]), dim=2)
    parts = []
    for start, stop, packed in form.segments(first, end):
        keys = torch.cat((near_k[:, :, :packed], k[:, :, packed:stop]), dim=2)
        values = torch.cat((near_v[:, :, :packed], v[:, :, packed:stop]), dim=2)
        queries = q[:, :, start - first : stop - first]
        parts.append(_causal(queries, keys, values, _rows(allowed, start - first, stop - first, stop)))
    return torch.cat(parts, dim=2)


def _causal(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    n_queries, n_keys = q.shape[2], k.shape[2]
    if n_queries == 1 or (n_queries == n_keys and allowed is None):
        return shared_keys_attention(q, k, v, allowed, is_causal=n_queries > 1)
    earlier = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device).tril(n_keys - n_queries)
    if allowed is None:
        allowed = earlier
    else:
        hidden = ~earlier
        allowed = allowed & earlier if allowed.dtype == torch.bool else allowed.masked_fill(hidden, -torch.inf)
    return shared_keys_attention(q, k, v, allowed)


def _rows(allowed: Tensor | None, start: int, stop: int, n_keys: int) -> Tensor | None:
    if allowed is None:
        return None
    rows = allowed if allowed.shape[2] == 1 else allowed[:, :, start:stop]
    return rows[..., :n_keys]


def _encode(rows: Tensor, bits: int) -> Rounded:
    """The codes of rows [..., n] on grids from their least to their largest value, both rounded as they are stored."""
    dtype = _stored(rows.dtype)
    limit = torch.finfo(dtype).max
    precise = rows.float()
    low, high = (bound.clamp(-limit, limit) for bound in precise.aminmax(dim=-1, keepdim=True))
    low = low.to(dtype)
    scale = ((high - low.float()) / (2**bits - 1)).clamp(max=limit).to(dtype)
    scale = torch.where(scale > 0, scale, 1.0)
    codes = ((precise - low.float()) / scale.float()).round().clamp(0, 2**bits - 1)
    return Rounded(codes.to(torch.uint8), low, scale)


def _decode(rounded: Rounded) -> Tensor:
    """float32 [..., n]."""
    return torch.addcmul(rounded.lows.float(), rounded.codes.float(), rounded.scales.float())


def _stored(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in HALF_DTYPES else torch.float16
