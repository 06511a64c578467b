"""ETC: long tokens see their neighbours and a few global tokens, which see everything; labels tell who is who.

Paper: https://arxiv.org/abs/2004.08483 (section 3). Two softmaxes: a long token's over the long tokens within
`radius` and all global ones, a global token's over all global and long ones. What a query has to do with a key is a
label, and its logit is (q . (k + a_label) + b_label) / sqrt(head_dim), with vectors a and scalars b of each head, and
tables of their own for long and for global queries. Tokens of one kind are labelled with their clipped offset.

Here the text has no sentences, so it is cut into equal segments: the first global token (as CLS) is that of the
whole text, each of the others that of one segment, and labels tell tokens of the own segment from others. Global
and long tokens share their projections, as in the authors' code by default.
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.attention.block_layout import BlockLayout, band_rows, block_of
from core.nn.attention.block_sparse import BlockRows, block_sparse_attention
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache

LABEL_STD = 0.5  # of the authors' code, where the normal distribution is cut at two of it
WHOLE_TEXT = -1  # the segment of the first global token


def offset_labels(offset: Tensor, max_distance: int) -> Tensor:
    """Labels 0..2k of offsets key - query: o where 0 <= o <= k, k - o where -k <= o < 0, farther ones clipped."""
    clipped = offset.clamp(-max_distance, max_distance)
    return torch.where(clipped >= 0, clipped, max_distance - clipped)


class Labels:
    """What a query has to do with a key, as numbers of rows in a table: offsets, own segment, other, not seen."""

    def __init__(self, max_distance: int, n_globals: int, length: int, *, hard: bool, isolated: bool):
        self.max_distance, self.n_globals = max_distance, n_globals
        self.segment_length = -(-length // max(1, n_globals - 1))
        self.hard, self.isolated = hard, isolated
        self.own = 2 * max_distance + 1
        self.other = self.own + 1
        self.unseen, self.own_more = self.own + 2, self.own + 3  # what the own segment has more than others

    def long_to_long(self, query: Tensor, key: Tensor, radius: int) -> Tensor:
        """Of positions among the long tokens, uint8 as they broadcast."""
        labels = offset_labels(key - query, self.max_distance)
        unseen = (key - query).abs() > radius
        if self.isolated:
            unseen = unseen | (query // self.segment_length != key // self.segment_length)
        return labels.masked_fill(unseen, self.unseen).to(torch.uint8)

    def long_and_global(self, long: Tensor, global_: Tensor) -> Tensor:
        """Of a position among the long tokens and one among the global ones, whichever is the query."""
        segment = torch.where(global_ > 0, global_ - 1, WHOLE_TEXT)
        return torch.where(long // self.segment_length == segment, self.own, self.other).to(torch.uint8)

    def global_to_long(self, global_: Tensor, long: Tensor) -> Tensor:
        """As `long_and_global`; hard, a global token reads only its own segment, but for the first."""
        labels = self.long_and_global(long, global_)
        return labels.masked_fill((labels == self.other) & (global_ > 0), self.unseen) if self.hard else labels

    def global_to_global(self, query: Tensor, key: Tensor) -> Tensor:
        """Of positions among the global tokens."""
        return offset_labels(key - query, self.max_distance).to(torch.uint8)


def etc_pattern(layout: BlockLayout, radius: int, labels: Labels, device: torch.device) -> list[BlockRows]:
    """Who sees whom, with labels."""
    inner = torch.arange(layout.block, device=device)
    front = torch.arange(layout.global_blocks * layout.block, device=device)
    pattern = []
    for part, _ in band_rows(layout, radius + 1, causal=False, device=device):
        long = (part.rows - layout.global_blocks)[:, None] * layout.block + inner  # [r, block]
        blocks = part.keys[0, :, layout.global_blocks :] - layout.global_blocks
        few = slice(None) if labels.isolated else slice(1)  # otherwise every row's are alike
        near = (blocks[few, :, None] * layout.block + inner).flatten(1)  # [r or 1, m * block]
        to_long = labels.long_to_long(long[few, :, None], near[:, None, :], radius)
        to_global = to_long.new_full((1, 1, 1), labels.other).expand(len(to_long), len(inner), len(front))
        segment = (long // labels.segment_length + 1).clamp(max=labels.n_globals - 1)  # place of its global token
        extra = (segment, labels.own_more) if labels.n_globals > 1 else None
        pattern.append(BlockRows(part.rows, part.keys, labels=torch.cat((to_global, to_long), dim=2), extra=extra))
    row = torch.arange(layout.global_blocks, device=device)
    query = (row[:, None] * layout.block + inner)[:, :, None]  # [r, block, 1]
    every = torch.arange(layout.long_blocks * layout.block, device=device)
    both = torch.cat((labels.global_to_global(query, front), labels.global_to_long(query, every)), dim=2)
    keys = torch.arange(layout.n_blocks, device=device).expand(1, len(row), -1)
    return [*pattern, BlockRows(row, keys, labels=both)]


class EtcAttention(SwappedAttention):
    """Global-local attention with labelled relative positions; the first `global_tokens` tokens are the global ones.

    `length` is the longest text's; `hard` lets global tokens read only their segment, `isolated` long tokens only
    long tokens of theirs.
    """

    settings = ("radius", "max_distance", "global_tokens", "length", "hard", "isolated")
    per_head = ("long_vectors", "long_biases", "global_vectors", "global_biases")

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        radius: int,
        max_distance: int,
        global_tokens: int,
        length: int,
        hard: bool = False,
        isolated: bool = False,
        **shape: Any,
    ):
        super().__init__(dim, heads, **shape)
        self.radius, self.max_distance = radius, max_distance
        self.global_tokens, self.length = global_tokens, length
        self.hard, self.isolated = hard, isolated
        n_labels = 2 * max_distance + 3
        self.long_vectors = nn.Parameter(torch.zeros(heads, n_labels, self.head_dim))
        self.long_biases = nn.Parameter(torch.zeros(heads, n_labels))
        self.global_vectors = nn.Parameter(torch.zeros(heads, n_labels, self.head_dim))
        self.global_biases = nn.Parameter(torch.zeros(heads, n_labels))

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Draw the labels' vectors; the biases are 0."""
        for vectors in (self.long_vectors, self.global_vectors):
            if not vectors.is_meta:
                drawn = torch.empty(vectors.shape)
                nn.init.trunc_normal_(drawn, std=LABEL_STD, a=-2 * LABEL_STD, b=2 * LABEL_STD, generator=generator)
                vectors.data.copy_(drawn)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        layout = BlockLayout(block_of(self.radius + 1), self.global_tokens, q.shape[2] - self.global_tokens)
        labels = Labels(self.max_distance, self.global_tokens, self.length, hard=self.hard, isolated=self.isolated)
        queries = layout.blocks(q)
        mixed = block_sparse_attention(
            queries,
            layout.blocks(k),
            layout.blocks(v),
            etc_pattern(layout, self.radius, labels, q.device),
            seen=layout.seen(mask, q),
            terms=self._terms(queries, layout),
        )
        return layout.tokens(mixed)

    def _terms(self, queries: Tensor, layout: BlockLayout) -> Tensor:
        """(q . a + b) / sqrt(d) of every label, what hides a key, and own less other: [B, heads, n, block, L + 2]."""
        n_long = queries.shape[2] - layout.global_blocks
        front, rest = queries.split((layout.global_blocks, n_long), dim=2)
        tables = ((front, self.global_vectors, self.global_biases), (rest, self.long_vectors, self.long_biases))
        terms = [x @ vectors.mT[:, None] + biases[:, None, None] for x, vectors, biases in tables]
        scaled = torch.cat(terms, dim=2) * self.head_dim**-0.5
        unseen = torch.full_like(scaled[..., :1], torch.finfo(scaled.dtype).min / 4)
        return torch.cat((scaled, unseen, scaled[..., -2:-1] - scaled[..., -1:]), dim=-1)
