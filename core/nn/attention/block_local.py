"""Block-local attention: tokens are cut into blocks, and a token sees only those of its own.

Paper: https://arxiv.org/abs/1801.10198 (Liu et al., section 4.2.4, local attention). Nothing passes from block to
block here, nor from layer to layer; with other attention between such layers it does. Where other layers have global
tokens in front of the text, these are in blocks of their own, and the text's blocks stay as they were.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.block_layout import BlockLayout
from core.nn.attention.block_sparse import block_sparse_attention
from core.nn.attention.full import full_attention
from core.nn.attention.pattern import BlockRows
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache


class BlockCache:
    """The keys and values of the block that is being filled; the token at position p lies in slot p mod block."""

    def __init__(self, block: int):
        self.block = block
        self.length = 0
        self.keys: Tensor | None = None  # [B, kv_heads, block, head_dim]
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T tokens; those since the beginning of the block that the first of them is in."""
        if self.keys is None or self.values is None:
            shape = (*keys.shape[:2], self.block, keys.shape[3])
            self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
        n_past = self.length % self.block
        self.length += keys.shape[2]
        return self._added(self.keys, keys, n_past), self._added(self.values, values, n_past)

    def _added(self, slots: Tensor, new: Tensor, n_past: int) -> Tensor:
        """What is in the slots and the new tokens behind it; the last block's are in the slots afterwards."""
        end = n_past + new.shape[2]
        if end <= self.block:
            slots[:, :, n_past:end] = new
            return slots[:, :, :end]
        since = torch.cat((slots[:, :, :n_past], new), dim=2)
        last = end % self.block
        slots[:, :, :last] = since[:, :, end - last :]
        return since


def block_local_attention(
    q: Tensor, k: Tensor, v: Tensor, block: int, *, causal: bool, mask: Tensor | None = None, n_globals: int = 0
) -> Tensor:
    """Softmax attention within blocks: [B, heads, T, head_dim] of q, and k and v [B, kv_heads, T, head_dim].

    `mask` [B, T] is True if a token may be seen. The blocks of the first `n_globals` tokens hold no others. Compute
    and memory are linear in T.
    """
    if int(q.shape[2]) <= block and not n_globals:
        return full_attention(q, k, v, causal=causal, mask=mask)
    layout = BlockLayout(block, n_globals, int(q.shape[2]) - n_globals)
    row = torch.arange(layout.n_blocks, device=q.device)
    earlier = torch.ones(block, block, dtype=torch.bool, device=q.device).tril() if causal else None
    pattern = [BlockRows(row, row[None, :, None], seen=earlier)]
    seen = layout.seen(mask, q)
    return layout.tokens(
        block_sparse_attention(layout.blocks(q), layout.blocks(k), layout.blocks(v), pattern, seen=seen)
    )


class BlockLocalAttention(SwappedAttention):
    """Softmax attention within blocks of `block` tokens; equals full attention where T <= block.

    The first `global_tokens` of the tokens it is given are those of other layers; not in a causal model.
    """

    settings = ("block", "global_tokens")

    def __init__(self, dim: int, heads: int, *, block: int, global_tokens: int = 0, **shape: Any):
        super().__init__(dim, heads, **shape)
        self.block, self.global_tokens = block, global_tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if cache is None:
            return block_local_attention(
                q, k, v, self.block, causal=self.causal, mask=mask, n_globals=self.global_tokens
            )
        assert isinstance(cache, BlockCache)
        assert mask is None
        k, v = cache.append(k, v)
        n_past = k.shape[2] - q.shape[2]
        if k.shape[2] <= self.block:
            return full_attention(q, k, v, causal=True)
        q = F.pad(q, (0, 0, n_past, 0))  # queries of the block's beginning, thrown away again
        return block_local_attention(q, k, v, self.block, causal=True)[:, :, n_past:]

    def make_cache(self, max_length: int) -> BlockCache:
        return BlockCache(self.block)
