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

from core.nn.attention import flexible
from core.nn.attention.pattern import BlockRows, PatternLabels

SCORES_A_THREAD = 1 << 17  # of the rows computed at once: with their keys and values they fit a core's cache
SCORES_ON_CUDA = 1 << 26


@dataclass(frozen=True)
class _Chunk:
    """Rows of `BlockRows` that are computed at once, with numbers that count through batch and heads."""

    rows: Tensor  # [c]
    keys: Tensor  # [c * m]
    bias: Tensor | None  # [block, m * block]
    labels: PatternLabels | None  # of these rows


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
    if terms is None and flexible.takes(q, pattern):
        return flexible.flexible_attention(q, k, v, pattern, seen)
    batch, heads, n_blocks = q.shape[:3]
    places = _Places(batch, heads, k.shape[1], n_blocks, q.device, q.dtype)
    bias = None
    if seen is not None:
        bias = _bias(seen, q.dtype)[:, None].expand(-1, k.shape[1], -1, -1).flatten(0, 2)  # [B * kv_heads * n, block]
    chunks = [chunk for part in pattern for chunk in places.chunks(part, q.shape[3])]
    flat_terms = terms.flatten(0, 2) if terms is not None else None
    tensors = (q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2), flat_terms, bias)
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    mixed = _BlockSparse.apply(*tensors, chunks) if needs_gradient else _mixed(*tensors, chunks)
    return mixed.view(q.shape)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where something is seen, else a number that no score outweighs; finite, so that nothing becomes NaN."""
    return (~seen).to(dtype) * (torch.finfo(dtype).min / 4)


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
        size = max(1, self._budget() // (block * block * max(1, n_keys)))
        for start in range(0, len(rows), size):
            own = slice(start, start + size)
            labels = self._labels(part.labels, torch.arange(start, min(start + size, len(rows))) % n_rows)
            yield _Chunk(rows[own], keys[own].flatten(), bias, labels)

    def _labels(self, labels: PatternLabels | None, chosen: Tensor) -> PatternLabels | None:
        if labels is None:
            return None
        chosen = chosen.to(self.device)
        last = labels.last if len(labels.last) == 1 else labels.last[chosen]
        return PatternLabels(last, labels.inside[chosen], labels.terms)

    def _budget(self) -> int:
        return SCORES_ON_CUDA if self.device.type == "cuda" else SCORES_A_THREAD * torch.get_num_threads()


def _weights(q: Tensor, k: Tensor, terms: Tensor | None, bias: Tensor | None, chunk: _Chunk) -> Tensor:
    """Softmax weights [c, block, m * block] of scaled queries q [c, block, d] over their keys k [c, m * block, d]."""
    scores = torch.bmm(q, k.transpose(1, 2))
    if chunk.labels is not None:
        assert terms is not None
        _add_terms(scores, terms.index_select(0, chunk.rows), chunk.labels)
    if chunk.bias is not None:
        scores += chunk.bias
    if bias is not None:
        scores += bias.index_select(0, chunk.keys).view(len(q), 1, -1)
    return scores.softmax(dim=-1)


def _add_terms(scores: Tensor, terms: Tensor, labels: PatternLabels) -> None:
    """Add what the labels choose of terms [c, block, L] to scores [c, block, m * block]."""
    n_front = labels.inside.shape[2]
    inside, outside = (terms[:, :, number, None] for number in labels.terms)
    scores[:, :, :n_front] += torch.where(labels.inside, inside, outside)
    scores[:, :, n_front:] += terms.gather(2, labels.last.long().expand(len(terms), -1, -1))


def _terms_gradient(d_scores: Tensor, n_terms: int, labels: PatternLabels) -> Tensor:
    """Gradient [c, block, L] of what `_add_terms` added."""
    front, last = d_scores.split((labels.inside.shape[2], labels.last.shape[2]), dim=2)
    gradient = d_scores.new_zeros(*d_scores.shape[:2], n_terms)
    gradient.scatter_add_(2, labels.last.long().expand(len(gradient), -1, -1), last)
    inside = (front * labels.inside).sum(dim=2)
    gradient[:, :, labels.terms[0]] += inside
    gradient[:, :, labels.terms[1]] += front.sum(dim=2) - inside
    return gradient


def _gathered(x: Tensor, chunk: _Chunk) -> Tensor:
    """The blocks of x [N, block, d] that a chunk's rows see: [c, m * block, d]."""
    return x.index_select(0, chunk.keys).view(len(chunk.rows), -1, x.shape[2])


def _mixed(q: Tensor, k: Tensor, v: Tensor, terms: Tensor | None, bias: Tensor | None, chunks: list[_Chunk]) -> Tensor:
    """Queries [R, block, d], keys and values [N, block, d], terms [R, block, L] -> [R, block, d]."""
    mixed = torch.empty_like(q)
    for chunk in chunks:
        queries = q.index_select(0, chunk.rows).mul_(q.shape[2] ** -0.5)
        weights = _weights(queries, _gathered(k, chunk), terms, bias, chunk)
        mixed.index_copy_(0, chunk.rows, torch.bmm(weights, _gathered(v, chunk)))
    return mixed


class _BlockSparse(torch.autograd.Function):
    """`_mixed`, which keeps nothing but its inputs and outputs for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, terms: Tensor | None, bias: Tensor | None, chunks: list[_Chunk]
    ) -> Tensor:
        mixed = _mixed(q, k, v, terms, bias, chunks)
        ctx.save_for_backward(q, k, v, terms, bias, mixed)
        ctx.chunks = chunks
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, terms, bias, mixed = ctx.saved_tensors
        dot = (upstream * mixed).sum(dim=-1, keepdim=True)  # of each query: its weights' mean gradient
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scale = q.shape[2] ** -0.5
        d_terms = torch.empty_like(terms) if terms is not None else None
        for chunk in ctx.chunks:
            queries, keys = q.index_select(0, chunk.rows).mul_(scale), _gathered(k, chunk)
            given = upstream.index_select(0, chunk.rows)
            weights = _weights(queries, keys, terms, bias, chunk)
            dv.index_add_(0, chunk.keys, torch.bmm(weights.transpose(1, 2), given).view(-1, *v.shape[1:]))
            d_scores = torch.bmm(given, _gathered(v, chunk).transpose(1, 2))
            d_scores.sub_(dot.index_select(0, chunk.rows)).mul_(weights)
            dq.index_copy_(0, chunk.rows, torch.bmm(d_scores, keys).mul_(scale))
            dk.index_add_(0, chunk.keys, torch.bmm(d_scores.transpose(1, 2), queries).view(-1, *k.shape[1:]))
            if d_terms is not None and chunk.labels is not None:
                d_terms.index_copy_(0, chunk.rows, _terms_gradient(d_scores, terms.shape[2], chunk.labels))
        return dq, dk, dv, d_terms, None, None
