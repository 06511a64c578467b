"""ETC: long tokens see their neighbours and a few global tokens, which see everything; labels tell who is who.

Paper: https://arxiv.org/abs/2004.08483 (section 3). Two softmaxes: a long token's over the long tokens within
`radius` and all global ones, a global token's over all global and long ones. What a query has to do with a key is a
label, and its logit is (q . (k + a_label) + b_label) / sqrt(head_dim), with vectors a and scalars b of each head, and
tables of their own for long and for global queries. Tokens of one kind are labelled with their clipped offset.

Here the text has no sentences, so it is cut into equal segments: the first global token (as CLS) is that of the
whole text, each of the others that of one segment, and labels tell a global token's own tokens from others. Global
and long tokens share their projections, as in the authors' code by default.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.attention.block_layout import BlockLayout, band_rows, block_of
from core.nn.attention.block_sparse import block_sparse_attention
from core.nn.attention.pattern import BlockRows, PatternLabels
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache

LABEL_STD = 0.5  # of the authors' code, where the normal distribution is cut at two of it


def offset_labels(offset: Tensor, max_distance: int) -> Tensor:
    """Labels 0..2k of offsets key - query: o where 0 <= o <= k, k - o where -k <= o < 0, farther ones clipped."""
    clipped = offset.clamp(-max_distance, max_distance)
    return torch.where(clipped >= 0, clipped, max_distance - clipped)


class Relations:
    """What a query has to do with a key, as numbers of rows in a table: offsets, own, other, not seen."""

    def __init__(self, max_distance: int, n_globals: int, length: int, *, hard: bool, isolated: bool):
        self.max_distance, self.n_globals = max_distance, n_globals
        self.segment_length = -(-length // max(1, n_globals - 1))
        self.hard, self.isolated = hard, isolated
        self.own = 2 * max_distance + 1
        self.other, self.unseen = self.own + 1, self.own + 2

    def offsets(self, query: Tensor, key: Tensor) -> Tensor:
        """Labels of positions of one kind, uint8."""
        return offset_labels(key - query, self.max_distance).to(torch.uint8)

    def neighbours(self, query: Tensor, key: Tensor, radius: int) -> Tensor:
        """Labels of positions among the long tokens, uint8; hidden where they are too far or in another segment."""
        hidden = (key - query).abs() > radius
        if self.isolated:
            hidden = hidden | (query // self.segment_length != key // self.segment_length)
        return self.offsets(query, key).masked_fill(hidden, self.unseen)

    def belong(self, long: Tensor, global_: Tensor) -> Tensor:
        """Whether a long token is of a global one's text or segment: bool."""
        return (global_ == 0) | (long // self.segment_length == global_ - 1)


def etc_pattern(layout: BlockLayout, radius: int, relations: Relations, device: torch.device) -> list[BlockRows]:
    """Who sees whom, with labels."""
    n_global, inner = layout.global_blocks, torch.arange(layout.block, device=device)
    fronts = torch.arange(n_global * layout.block, device=device)
    pattern = []
    for part, _ in band_rows(layout, radius + 1, causal=False, device=device):
        long = ((part.rows - n_global)[:, None] * layout.block + inner)[:, :, None]  # [r, block, 1]
        near = ((part.keys[0, :, n_global:] - n_global)[:, :, None] * layout.block + inner).flatten(1)[:, None]
        few = slice(None) if relations.isolated else slice(1)  # otherwise every row's are alike
        last = relations.neighbours(long[few], near[few], radius)
        labels = PatternLabels(last, relations.belong(long, fronts), (relations.own, relations.other))
        pattern.append(BlockRows(part.rows, part.keys, labels=labels))
    row = torch.arange(n_global, device=device)
    query = (row[:, None] * layout.block + inner)[:, :, None]
    every = torch.arange(layout.long_blocks * layout.block, device=device)
    others = relations.unseen if relations.hard else relations.other
    labels = PatternLabels(relations.offsets(query, fronts), relations.belong(every, query), (relations.own, others))
    keys = torch.cat((torch.arange(n_global, layout.n_blocks, device=device), row))
    keys = keys[None, None].repeat(1, n_global, 1)
    return [*pattern, BlockRows(row, keys, labels=labels)]


class EtcAttention(SwappedAttention):
    """Global-local attention with labelled relative positions; the first `global_tokens` tokens are the global ones.

    `length` is the longest text's; `hard` lets global tokens read only their segment, `isolated` long tokens only
    long tokens of theirs.
    """

    limits_length = True
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
        length = int(q.shape[2]) - self.global_tokens
        if length > self.length:
            raise ValueError(f"the segments were made for {self.length} tokens, not {length}")
        layout = BlockLayout(block_of(self.radius + 1), self.global_tokens, length)
        relations = Relations(
            self.max_distance, self.global_tokens, self.length, hard=self.hard, isolated=self.isolated
        )
        queries = layout.blocks(q)
        mixed = block_sparse_attention(
            queries,
            layout.blocks(k),
            layout.blocks(v),
            etc_pattern(layout, self.radius, relations, q.device),
            seen=layout.seen(mask, q),
            terms=self._terms(queries, layout),
        )
        return layout.tokens(mixed)

    def _terms(self, queries: Tensor, layout: BlockLayout) -> Tensor:
        """(q . a + b) / sqrt(d) of every label, and what hides a key: [B, heads, n, block, L + 1]."""
        flat, start = queries.flatten(2, 3), layout.global_blocks * layout.block  # one product a head
        parts = (
            (flat[:, :, :start], self.global_vectors, self.global_biases),
            (flat[:, :, start:], self.long_vectors, self.long_biases),
        )
        terms = [x @ vectors.transpose(1, 2) + biases[:, None] for x, vectors, biases in parts]
        scaled = torch.cat(terms, dim=2).unflatten(2, (-1, layout.block)) * self.head_dim**-0.5
        return F.pad(scaled, (0, 1), value=torch.finfo(scaled.dtype).min / 4)
