"""Masked softmax over the whole matrix, written out: what every sparse pattern must equal."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.nn.attention.block_layout import BlockLayout


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


def bigbird_mask(attention, length):
    """bool [heads, g + length, g + length] of a BigBird attention: the pattern of the longest text, cut to this one."""
    block, n_globals = attention.block, attention.global_tokens
    whole = BlockLayout(block, n_globals, attention.length)
    mask = dense_mask(attention.pattern(whole), whole.n_blocks, block, attention.heads)
    start = block * -(-n_globals // block)
    kept = [*range(n_globals), *range(start, start + length)]
    return mask[:, kept][:, :, kept]


def etc_labels(attention, q):
    """Token by token, whom ETC's queries [B, h, g + T, d] see and what is added to the scores: [g + T] squared each."""
    g, total, k_max = attention.global_tokens, q.shape[2], attention.max_distance
    own, other = 2 * k_max + 1, 2 * k_max + 2
    segment = -(-attention.length // max(1, g - 1))
    labels, seen = torch.zeros(total, total, dtype=torch.long), torch.ones(total, total, dtype=torch.bool)
    for i in range(total):
        for j in range(total):
            if (i < g) == (j < g):
                offset = max(-k_max, min(k_max, j - i))
                labels[i, j] = offset if offset >= 0 else k_max - offset
                if i >= g:
                    seen[i, j] = abs(i - j) <= attention.radius
                    if attention.isolated and (i - g) // segment != (j - g) // segment:
                        seen[i, j] = False
            else:
                global_, long = (i, j - g) if i < g else (j, i - g)
                mine = global_ == 0 or long // segment == global_ - 1
                labels[i, j] = own if mine else other
                if attention.hard and i < g and not mine:
                    seen[i, j] = False
    terms = []
    for x, vectors, biases in (
        (q[:, :, :g], attention.global_vectors, attention.global_biases),
        (q[:, :, g:], attention.long_vectors, attention.long_biases),
    ):
        terms.append(torch.einsum("bhid,hld->bhil", x, vectors) + biases[:, None])
    return seen, torch.cat(terms, dim=2).gather(3, labels.expand(*q.shape[:2], -1, -1))


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
