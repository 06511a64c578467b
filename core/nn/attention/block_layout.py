"""Tokens laid out in blocks: global tokens in blocks of their own in front, the others after them, both padded."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.attention.pattern import BlockRows

WIDEST_BLOCK = 64  # wider windows reach over several blocks, which computes fewer pairs that are not in them


@dataclass(frozen=True)
class BlockLayout:
    """Where `n_globals` + `length` tokens lie in blocks; `spare` more of nothing but padding are at the end.

    The numbers are plain ones, also while a graph is traced, where sizes are tensors.
    """

    block: int
    n_globals: int
    length: int
    spare: int = 0

    @property
    def global_blocks(self) -> int:
        """Blocks of global tokens, the first ones."""
        return -(-self.n_globals // self.block)

    @property
    def long_blocks(self) -> int:
        """Blocks of the other tokens, without spare ones."""
        return -(-self.length // self.block)

    @property
    def n_blocks(self) -> int:
        """All blocks."""
        return self.global_blocks + self.long_blocks + self.spare

    def blocks(self, x: Tensor) -> Tensor:
        """[B, h, n_globals + length, d] -> [B, h, n_blocks, block, d]; padding is 0."""
        return self._padded(x, dim=2).unflatten(2, (-1, self.block))

    def tokens(self, x: Tensor) -> Tensor:
        """[B, h, n_blocks, block, d] -> [B, h, n_globals + length, d]."""
        flat, start = x.flatten(2, 3), self.global_blocks * self.block
        long = flat[:, :, start : start + self.length]
        return torch.cat((flat[:, :, : self.n_globals], long), dim=2) if self.n_globals else long

    def seen(self, mask: Tensor | None, like: Tensor) -> Tensor | None:
        """Which keys [B, n_blocks, block] are tokens, of a mask [B, n_globals + length]; None: all are."""
        if mask is None:
            if self.n_blocks * self.block == self.n_globals + self.length:
                return None
            mask = torch.ones(1, self.n_globals + self.length, dtype=torch.bool, device=like.device)
        return (
            self._padded(mask.bool()[:, :, None], dim=1)[:, :, 0]
            .unflatten(1, (-1, self.block))
            .expand(len(like), -1, -1)
        )

    def _padded(self, x: Tensor, dim: int) -> Tensor:
        before = self.global_blocks * self.block - self.n_globals
        after = (self.long_blocks + self.spare) * self.block - self.length
        below = (0, 0) * (x.dim() - 1 - dim)
        if before:
            first, rest = x.split((self.n_globals, self.length), dim=dim)
            return torch.cat((F.pad(first, (*below, 0, before)), F.pad(rest, (*below, 0, after))), dim=dim)
        return F.pad(x, (*below, 0, after)) if after else x


def block_of(window: int) -> int:
    """Tokens of a block, for a window of so many on one side."""
    return min(window, WIDEST_BLOCK)


def band(window: int, block: int, *, causal: bool, device: torch.device) -> Tensor:
    """Which keys of the blocks around it a query of a block sees: bool [block, m * block].

    Causal: itself and the window - 1 before it; else |i - j| < window. m is `reach` blocks before it, itself, and
    as many after it where not causal.
    """
    reach = -(-(window - 1) // block)
    query = torch.arange(block, device=device)[:, None]
    key = torch.arange(-reach * block, block if causal else (reach + 1) * block, device=device)[None, :]
    return (key <= query) & (key > query - window) if causal else (key - query).abs() < window


def band_rows(
    layout: BlockLayout, window: int, *, causal: bool, device: torch.device
) -> Iterator[tuple[BlockRows, slice]]:
    """Rows that see the global blocks and the blocks within a window; with each, which columns of `band` they have.

    Rows at the ends, whose window is cut off, come one by one.
    """
    n, n_global = layout.long_blocks, layout.global_blocks
    reach = -(-(window - 1) // layout.block)
    after = 0 if causal else reach
    whole = range(reach, n - after) if n > reach + after else range(0)
    for rows in (whole, *(range(i, i + 1) for i in range(n) if i not in whole)):
        if len(rows):
            first, last = max(-reach, -rows[0]), min(after, n - 1 - rows[-1])
            row = torch.arange(rows.start, rows.stop, device=device)
            near = row[:, None] + torch.arange(first, last + 1, device=device)
            front = torch.arange(n_global, device=device)[None].repeat(len(row), 1)
            keys = torch.cat((front, near + n_global), dim=1)
            columns = slice((first + reach) * layout.block, (last + reach + 1) * layout.block)
            yield BlockRows(row + n_global, keys[None]), columns


def global_rows(layout: BlockLayout, device: torch.device) -> list[BlockRows]:
    """The rows of global tokens, which see everything; none where there are none."""
    if not layout.global_blocks:
        return []
    every = torch.arange(layout.n_blocks, device=device)[None, None].repeat(1, layout.global_blocks, 1)
    return [BlockRows(torch.arange(layout.global_blocks, device=device), every)]
