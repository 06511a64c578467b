"""Masked softmax over the whole matrix, written out: what every sparse pattern must equal."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def dense_mask(pattern, n_blocks, block, heads, seen=None):
    """bool [heads, T, T] of a pattern of block rows; a row named twice, or keys that count twice, are an error."""
    mask = torch.zeros(heads, n_blocks, block, n_blocks, block, dtype=torch.bool)
    named = []
    for part in pattern:
        named += part.rows.tolist()
        for head in range(heads):
            keys = part.keys[head if len(part.keys) > 1 else 0]
            for row, its in zip(part.rows.tolist(), keys.tolist(), strict=True):
                assert len(set(its)) == len(its), f"row {row} counts blocks twice: {its}"
                inside = torch.ones(block, len(its) * block, dtype=torch.bool) if part.seen is None else part.seen
                for place, key in enumerate(its):
                    mask[head, row, :, key] = inside[:, place * block : (place + 1) * block]
    assert sorted(named) == list(range(n_blocks))
    return mask.flatten(1, 2).flatten(2, 3)


def masked_softmax(q, k, v, mask, bias=0.0):
    """q [B, h, T, d], k and v [B, kv, T, d], mask broadcast to [B, h, T, T], bias added before scaling."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = ((q @ k.transpose(2, 3) + bias) * q.shape[3] ** -0.5).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def random_qkv(length, heads=4, kv_heads=2, head_dim=8, batch=2):
    """Double-precision queries, keys and values [B, h, T, d] with gradients."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, h, length, head_dim, dtype=torch.float64, generator=generator, requires_grad=True)
        for h in (heads, kv_heads, kv_heads)
    ]


def assert_same_with_gradients(mine, theirs, inputs, rows=slice(None)):
    """Outputs [B, h, T, d] and the gradients of all inputs agree to 1e-10, on these tokens."""
    torch.testing.assert_close(mine[:, :, rows], theirs[:, :, rows], rtol=0, atol=1e-10)
    upstream = torch.randn(mine.shape, dtype=mine.dtype, generator=torch.Generator().manual_seed(1))
    wanted = torch.zeros_like(upstream)
    wanted[:, :, rows] = upstream[:, :, rows]
    pairs = zip(torch.autograd.grad(mine, inputs, wanted), torch.autograd.grad(theirs, inputs, wanted), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that any operation gives."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.entries = max([self.entries, *sizes])
        return result
