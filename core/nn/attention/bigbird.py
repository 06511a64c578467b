"""BigBird: every token sees its neighbours, a few random blocks, and global tokens that see everything.

Paper: https://arxiv.org/abs/2007.14062 (section 2 and appendix D). Tokens are cut into blocks; a block sees itself, the
one before and the one after, `random` others, and the global ones. In the internal construction (ITC) the first and
the last block are global, in the extended one (ETC) the `global_tokens` in front of the others. No block is in a
softmax twice: random blocks are drawn among those that are not seen anyway. As in the authors' code, the second
block never draws the last but one, nor the last but one the second.

The pattern is that of `length` tokens and is drawn once, for each head its own. A shorter text sees what it would
see if it were padded to that length, so what a token sees does not depend on how much padding there is.
"""

from typing import Any

import torch
from torch import Tensor

from core.nn.attention.block_layout import BlockLayout, band_rows, global_rows
from core.nn.attention.block_sparse import block_sparse_attention
from core.nn.attention.full import shared_keys_attention
from core.nn.attention.pattern import BlockRows
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache

NEAR = 3  # blocks of the window


def sees_all(n_blocks: int, random: int, *, internal: bool) -> bool:
    """Whether a block sees as many blocks as there are: then there are not enough to draw from."""
    return n_blocks <= NEAR + random + (2 if internal else 0)


def legal_blocks(n_blocks: int, *, internal: bool) -> Tensor:
    """Which blocks a block may draw: bool [n_blocks, n_blocks]; the rows of global blocks mean nothing."""
    place = torch.arange(n_blocks)
    legal = (place[:, None] - place[None, :]).abs() > 1
    if internal:
        legal[:, 0] = legal[:, -1] = False
        legal[1, -2] = legal[-2, 1] = False
    return legal


def draw_random_blocks(
    n_blocks: int, heads: int, random: int, *, internal: bool, generator: torch.Generator | None
) -> Tensor:
    """For every head and block the `random` blocks that it sees beside its neighbours: [heads, n_blocks, random]."""
    order = torch.rand(heads, n_blocks, n_blocks, generator=generator)
    order.masked_fill_(~legal_blocks(n_blocks, internal=internal), -1.0)
    drawn = order.topk(random, dim=-1).indices.sort(dim=-1).values
    if internal:
        drawn[:, 0] = drawn[:, -1] = 0  # these see everything
    return drawn


def internal_pattern(layout: BlockLayout, n_blocks: int, random_blocks: Tensor) -> list[BlockRows]:
    """Who sees whom in ITC, of texts of `n_blocks` blocks of which the layout's are there.

    A text that is shorter lacks the last block, and the random ones that it does not reach: they are the layout's
    spare block.
    """
    present, device = layout.long_blocks, random_blocks.device
    whole = present == n_blocks
    ends = [0, n_blocks - 1] if whole else [0]
    every = torch.arange(present, device=device)
    pattern = [BlockRows(torch.tensor(ends, device=device), every[None, None].repeat(1, len(ends), 1))]
    last = min(present, n_blocks - 1)  # the first row that is none of the inner ones
    for rows in (range(1, 2), range(2, min(last, n_blocks - 2)), range(n_blocks - 2, last)):
        if len(rows) and rows.stop <= last:
            row = every[rows.start : rows.stop]
            near = [row + offset for offset in (-1, 0, 1)]
            near = near[1:] if rows.start == 1 else near[:-1] if rows.start == n_blocks - 2 else near
            fixed = torch.stack([torch.full_like(row, end) for end in ends] + near, dim=1)
            pattern.append(_with_random(row, fixed, random_blocks, present))
    return pattern


def extended_pattern(layout: BlockLayout, random_blocks: Tensor) -> list[BlockRows]:
    """Who sees whom in ETC: the global blocks, the neighbours and the random ones; global blocks see everything."""
    pattern = global_rows(layout, random_blocks.device)
    for part, _ in band_rows(layout, layout.block + 1, causal=False, device=random_blocks.device):
        pattern.append(_with_random(part.rows, part.keys[0], random_blocks, layout.long_blocks, layout.global_blocks))
    return pattern


def _with_random(rows: Tensor, fixed: Tensor, random_blocks: Tensor, present: int, first: int = 0) -> BlockRows:
    """The rows [r] with fixed keys [r, m] and their random ones; `first` blocks are before those counted in these."""
    drawn = random_blocks[:, rows - first].clamp(max=present) + first  # [heads, r, random]
    return BlockRows(rows, torch.cat((fixed[None].repeat(len(drawn), 1, 1), drawn), dim=2))


class BigBirdAttention(SwappedAttention):
    """Window, random and global blocks; full attention where the pattern would leave out (next to) nothing.

    Without `global_tokens` the first and last block are global (ITC). At most `length` tokens beside the global ones.
    """

    limits_length = True
    settings = ("block", "random", "length", "global_tokens")
    per_head = ("random_blocks",)
    random_blocks: Tensor

    def __init__(
        self, dim: int, heads: int, *, block: int, random: int, length: int, global_tokens: int = 0, **shape: Any
    ):
        super().__init__(dim, heads, **shape)
        self.block, self.random, self.length, self.global_tokens = block, random, length, global_tokens
        n_rows = 0 if self.is_full else self.n_blocks
        self.register_buffer("random_blocks", torch.zeros(heads, n_rows, random, dtype=torch.long))

    @property
    def n_blocks(self) -> int:
        """Blocks of the longest text."""
        return -(-self.length // self.block)

    @property
    def internal(self) -> bool:
        """Whether blocks of the text itself are global (ITC)."""
        return not self.global_tokens

    @property
    def is_full(self) -> bool:
        """Whether the longest text has no more blocks than a block sees."""
        return sees_all(self.n_blocks, self.random, internal=self.internal)

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Draw the random blocks; nothing on the meta device."""
        if self.is_full or self.random_blocks.is_meta:
            return
        heads = len(self.random_blocks)
        drawn = draw_random_blocks(self.n_blocks, heads, self.random, internal=self.internal, generator=generator)
        self.random_blocks.copy_(drawn)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        length = int(q.shape[2]) - self.global_tokens
        if length > self.length:
            raise ValueError(f"the pattern was made for {self.length} tokens, not {length}")
        if self.is_full:
            allowed = mask[:, None, None, :] if mask is not None else None
            return shared_keys_attention(q, k, v, allowed)
        layout = BlockLayout(self.block, self.global_tokens, length)
        if layout.long_blocks < self.n_blocks:
            layout = BlockLayout(self.block, self.global_tokens, length, spare=1)
        q, k, v = layout.blocks(q), layout.blocks(k), layout.blocks(v)
        return layout.tokens(block_sparse_attention(q, k, v, self.pattern(layout), seen=layout.seen(mask, q)))

    def pattern(self, layout: BlockLayout) -> list[BlockRows]:
        """Who sees whom among the blocks of a text."""
        if self.internal:
            return internal_pattern(layout, self.n_blocks, self.random_blocks)
        return extended_pattern(layout, self.random_blocks)
