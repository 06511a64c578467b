"""Block-sparse patterns for FlexAttention, whose compiled kernel skips blocks on a GPU.

Paper: https://arxiv.org/abs/2412.05496. Used on CUDA for patterns without labels; on a CPU its kernel has no backward
pass.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from core.nn.attention.pattern import BlockRows

TILE = 64  # what the kernel's tiles divide


def takes(q: Tensor, pattern: Sequence[BlockRows]) -> bool:
    """Whether the compiled kernel can do it: on CUDA, in blocks and heads of fitting sizes, without labels."""
    block, width = q.shape[3:]
    fitting = block % TILE == 0 and width >= 16 and width & (width - 1) == 0
    return q.is_cuda and fitting and all(part.labels is None for part in pattern)


def flexible_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Sequence[BlockRows],
    seen: Tensor | None,
    attend: Callable[..., Any] | None = None,
) -> Tensor:
    """As `core.nn.attention.block_sparse.block_sparse_attention`, by `attend` or else the compiled flex_attention."""
    heads, n_blocks, block = q.shape[1:4]
    mask = block_mask(pattern, heads, n_blocks, block, seen)
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    mixed: Tensor = (attend or _compiled())(q, k, v, block_mask=mask, enable_gqa=k.shape[1] < heads)
    return mixed.unflatten(2, (n_blocks, block))


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def block_mask(pattern: Sequence[BlockRows], heads: int, n_blocks: int, block: int, seen: Tensor | None) -> BlockMask:
    """The pattern as FlexAttention wants it; `seen` [B, n_blocks, block] is True at keys that may be seen at all."""
    device = pattern[0].rows.device
    counts = torch.zeros(1, heads, n_blocks, dtype=torch.int32, device=device)
    indices = torch.zeros(1, heads, n_blocks, n_blocks, dtype=torch.int32, device=device)
    for part in pattern:
        counts[0, :, part.rows] = part.keys.shape[2]
        indices[0, :, part.rows, : part.keys.shape[2]] = part.keys.expand(heads, -1, -1).int()
    inside = _mask(pattern, indices, counts, block, seen)
    if seen is not None or _has_bands(pattern):
        return BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=block, mask_mod=inside)
    none = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(none, torch.zeros_like(indices), counts, indices, BLOCK_SIZE=block, mask_mod=inside)


def _mask(
    pattern: Sequence[BlockRows], indices: Tensor, counts: Tensor, block: int, seen: Tensor | None
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether an example's head lets a query see a key."""
    heads, n_blocks, device = indices.shape[1], indices.shape[2], indices.device
    named = torch.arange(n_blocks, device=device) < counts[0, :, :, None]  # [heads, n, n]: how many indices count
    visible = torch.zeros(heads, n_blocks, n_blocks, dtype=torch.bool, device=device)
    visible.scatter_reduce_(2, indices[0].long(), named, "amax")
    widest = max([part.seen.shape[1] for part in pattern if part.seen is not None], default=block)
    bands = torch.ones(len(pattern), block, widest, dtype=torch.bool, device=device)
    which = torch.zeros(n_blocks, dtype=torch.long, device=device)  # of the pattern's parts, for each row
    place = torch.zeros(n_blocks, n_blocks, dtype=torch.long, device=device)  # of a key block in its row
    for number, part in enumerate(pattern):
        which[part.rows] = number
        if part.seen is not None:  # such rows are the same for every head
            bands[number, :, : part.seen.shape[1]] = part.seen
            order = torch.arange(part.keys.shape[2], device=device).expand(len(part.rows), -1)
            place[part.rows[:, None], part.keys[0]] = order
    tokens = seen.flatten(1) if seen is not None else None

    def mask(example: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row, column = query // block, key // block
        inside = visible[head, row, column]
        inside = inside & bands[which[row], query % block, place[row, column] * block + key % block]
        return inside if tokens is None else inside & tokens[example, key]

    return mask


def _has_bands(pattern: Sequence[BlockRows]) -> bool:
    return any(part.seen is not None for part in pattern)
