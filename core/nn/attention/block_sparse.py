"""Softmax attention in which blocks of queries see some blocks of keys: the kernel under every sparse pattern here.

Paper: https://arxiv.org/abs/2007.14062 (BigBird, section D: blocks of queries times gathered blocks of keys). Here a
pattern is a list of `BlockRows`. A few rows at a time are gathered, multiplied and normalized while they are in the
processor's cache; the backward pass computes their weights again. So nothing of size length x length is made, and
beyond queries, keys, values and outputs only a few rows' scores are ever held.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES_A_THREAD = 1 << 17  # of the rows computed at once: with their keys and values they fit a core's cache
SCORES_ON_CUDA = 1 << 26


@dataclass(frozen=True)
class BlockRows:
    """Rows of blocks that each see m blocks of keys, and what the tokens in them see of those.

    Keys that a row names twice count twice in its softmax.
    """

    rows: Tensor  # [r]: numbers of the blocks of queries
    keys: Tensor  # [heads or 1, r, m]: numbers of the blocks of keys that they see
    seen: Tensor | None = None  # bool [block, m * block], the same for every row; None: everything
    labels: Tensor | None = None  # uint8 [r or 1, block, m * block]: which of a query's `terms` is added to a score
    extra: tuple[Tensor, int] | None = None  # [r, block] columns: where each query's term of this number is added too


@dataclass(frozen=True)
class _Chunk:
    """Rows of `BlockRows` that are computed at once, with numbers that count through batch and heads."""

    rows: Tensor  # [c]
    keys: Tensor  # [c * m]
    bias: Tensor | None  # [block, m * block]
    labels: Tensor | None  # [c or 1, block, m * block]
    extra: tuple[Tensor, int] | None  # [c, block, 1]


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Sequence[BlockRows],
    *,
    seen: Tensor | None = None,
    terms: Tensor | None = None,
) -> Tensor:
    """Attention of q [B, heads, n, block, d] to k and v [B, kv_heads, n, block, d] under a pattern: as q.

    Scores are scaled by 1 / sqrt(d). Every row of blocks is named by the pattern once. `seen` [B, n, block] is True
    at keys that may be seen at all; a query that sees none of its keys gets an arbitrary mean of them. `terms`
    [B, heads, n, block, L] are what the pattern's labels choose from, scaled already and added to the scores.
    """
    batch, heads, n_blocks, _, width = q.shape
    places = _Places(batch, heads, k.shape[1], n_blocks, q.device, q.dtype)
    bias = None
    if seen is not None:
        bias = _bias(seen, q.dtype)[:, None].expand(-1, k.shape[1], -1, -1).flatten(0, 2)  # [B * kv_heads * n, block]
    chunks = [chunk for part in pattern for chunk in places.chunks(part, q.shape[3])]
    flat_terms = terms.flatten(0, 2) if terms is not None else None
    mixed = _BlockSparse.apply(
        (q * width**-0.5).flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2), flat_terms, bias, chunks
    )
    return mixed.view(q.shape)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where something is seen, else a number that no score outweighs; finite, so that nothing becomes NaN."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min / 4)


@dataclass(frozen=True)
class _Places:
    """How the blocks of all examples and heads are numbered through, and cut into chunks."""

    batch: int
    heads: int
    kv_heads: int
    n_blocks: int
    device: torch.device
    dtype: torch.dtype

    def chunks(self, part: BlockRows, block: int) -> Iterator[_Chunk]:
        n_rows, n_keys = part.keys.shape[1:]
        group = torch.arange(self.batch * self.heads, device=self.device)
        kv_group = group // self.heads * self.kv_heads + group % self.heads // (self.heads // self.kv_heads)
        rows = (group[:, None] * self.n_blocks + part.rows).flatten()
        keys = part.keys.expand(self.heads, -1, -1).repeat(self.batch, 1, 1)
        keys = (kv_group[:, None, None] * self.n_blocks + keys).flatten(0, 1)  # [B * heads * r, m]
        bias = _bias(part.seen, self.dtype) if part.seen is not None else None
        labels = part.labels.long() if part.labels is not None and len(part.labels) == 1 else part.labels
        size = max(1, self._budget() // (block * block * max(1, n_keys)))
        for start in range(0, len(rows), size):
            own = slice(start, start + size)
            chosen = torch.arange(start, min(start + size, len(rows)), device=self.device) % n_rows
            yield _Chunk(
                rows[own],
                keys[own].flatten(),
                bias,
                labels if labels is None or len(labels) == 1 else labels[chosen],
                (part.extra[0][chosen, :, None], part.extra[1]) if part.extra is not None else None,
            )

    def _budget(self) -> int:
        return SCORES_ON_CUDA if self.device.type == "cuda" else SCORES_A_THREAD * torch.get_num_threads()


def _weights(q: Tensor, k: Tensor, terms: Tensor | None, bias: Tensor | None, chunk: _Chunk) -> Tensor:
    """Softmax weights [c, block, m * block] of a chunk's queries q [c, block, d] over its keys k [c, m * block, d]."""
    scores = torch.bmm(q, k.transpose(1, 2))
    if chunk.labels is not None:
        assert terms is not None
        own = terms.index_select(0, chunk.rows)
        scores += own.gather(2, chunk.labels.long().expand(len(own), -1, -1))
        if chunk.extra is not None:
            column, term = chunk.extra
            scores.scatter_add_(2, column, own[:, :, term, None])
    if chunk.bias is not None:
        scores += chunk.bias
    if bias is not None:
        scores += bias.index_select(0, chunk.keys).view(len(q), 1, -1)
    return scores.softmax(dim=-1)


def _gathered(x: Tensor, chunk: _Chunk) -> Tensor:
    """The blocks of x [N, block, d] that a chunk's rows see: [c, m * block, d]."""
    return x.index_select(0, chunk.keys).view(len(chunk.rows), -1, x.shape[2])


class _BlockSparse(torch.autograd.Function):
    """Queries [R, block, d], keys and values [N, block, d], terms [R, block, L] -> [R, block, d]."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, terms: Tensor | None, bias: Tensor | None, chunks: list[_Chunk]
    ) -> Tensor:
        mixed = torch.empty_like(q)
        for chunk in chunks:
            weights = _weights(q.index_select(0, chunk.rows), _gathered(k, chunk), terms, bias, chunk)
            mixed.index_copy_(0, chunk.rows, torch.bmm(weights, _gathered(v, chunk)))
        ctx.save_for_backward(q, k, v, terms, bias, mixed)
        ctx.chunks = chunks
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, terms, bias, mixed = ctx.saved_tensors
        dot = (upstream * mixed).sum(dim=-1, keepdim=True)  # of each query: its weights' mean gradient
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_terms = torch.empty_like(terms) if terms is not None else None
        for chunk in ctx.chunks:
            queries, keys = q.index_select(0, chunk.rows), _gathered(k, chunk)
            given = upstream.index_select(0, chunk.rows)
            weights = _weights(queries, keys, terms, bias, chunk)
            dv.index_add_(0, chunk.keys, torch.bmm(weights.transpose(1, 2), given).view(-1, *v.shape[1:]))
            d_scores = torch.bmm(given, _gathered(v, chunk).transpose(1, 2))
            d_scores.sub_(dot.index_select(0, chunk.rows)).mul_(weights)
            dq.index_copy_(0, chunk.rows, torch.bmm(d_scores, keys))
            dk.index_add_(0, chunk.keys, torch.bmm(d_scores.transpose(1, 2), queries).view(-1, *k.shape[1:]))
            if d_terms is not None and chunk.labels is not None:
                own = d_scores.new_zeros(len(queries), *terms.shape[1:])
                own.scatter_add_(2, chunk.labels.long().expand(len(own), -1, -1), d_scores)
                if chunk.extra is not None:
                    column, term = chunk.extra
                    own[:, :, term, None] += d_scores.gather(2, column)
                d_terms.index_copy_(0, chunk.rows, own)
        return dq, dk, dv, d_terms, None, None
