"""RWKV-5's and RWKV-6's recurrence, whose state is a matrix a head, exactly and without a loop over tokens.

Paper: https://arxiv.org/abs/2404.05892, equations 18 to 21. For each head, with row vectors r, k, v and decays w_t:

    o_t = r_t (diag(u) k_t^T v_t + S_{t-1}),   S_t = diag(w_t) S_{t-1} + k_t^T v_t.

Tokens are cut into chunks, between which the state passes. Inside a chunk pairs of tokens are halved again and again:
the left half of a stretch reaches the right half through the point between them, so that both factors of the decay
from key to query are at most 1. Dividing by products of decays, which is simpler, overflows where decay is fast.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # tokens; a power of two


def matrix_wkv(
    r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """o [B, heads, T, N] of r, k, v [B, heads, T, N], and the state [B, heads, N, N] (keys x values) after them.

    `log_decay` [B or 1, heads, T, N] is the logarithm of each token's decay, at most 0, and `bonus` [heads, N] is u.
    All are float32 or float64 of one type; gradients reach all of them.
    """
    if state is None:
        state = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3])
    own = (r * k * bonus[:, None]).sum(-1, keepdim=True) * v  # through u, not through the state
    if r.shape[2] == 1:
        after = log_decay.transpose(2, 3).exp() * state + k.transpose(2, 3) @ v
        return r @ state + own, after
    length = int(r.shape[2])  # a tensor while the model is traced
    size = min(CHUNK, 1 << (length - 1).bit_length())
    rest = -length % size
    r, k, v, log_decay = (F.pad(x, (0, 0, 0, rest)).unflatten(2, (-1, size)) for x in (r, k, v, log_decay))
    whole = log_decay.sum(3).exp()[:, :, :, :, None]  # [B or 1, heads, n, N, 1]
    added = (k * _after(log_decay).exp()).transpose(3, 4) @ v  # [B, heads, n, N, N]
    states = [state]
    for decay, new in zip(whole.unbind(2), added.unbind(2), strict=True):
        states.append(decay * states[-1] + new)
    o = (r * _before(log_decay).exp()) @ torch.stack(states[:-1], dim=2)
    o = o + _inside(r, k, v, log_decay)
    return o.flatten(2, 3)[:, :, :length] + own, states[-1]


def _inside(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """What the tokens of a chunk get from those before them in it; all [B, heads, n, size, N]."""
    size = r.shape[3]
    if size == 1:
        return torch.zeros_like(v)
    half = size // 2
    queries = r[:, :, :, half:] * _before(log_decay[:, :, :, half:]).exp()
    keys = k[:, :, :, :half] * _after(log_decay[:, :, :, :half]).exp()
    across = F.pad(queries @ keys.transpose(3, 4) @ v[:, :, :, :half], (0, 0, half, 0))
    halves = (x.unflatten(3, (2, half)).flatten(2, 3) for x in (r, k, v, log_decay))
    return across + _inside(*halves).unflatten(2, (-1, 2)).flatten(3, 4)


def _before(log_decay: Tensor) -> Tensor:
    """The sum of those before each token of a stretch (axis 3), summed as it is: differences of sums would round."""
    return F.pad(log_decay[:, :, :, :-1].cumsum(3), (0, 0, 1, 0))


def _after(log_decay: Tensor) -> Tensor:
    """The sum of those after each token of a stretch."""
    return _before(log_decay.flip(3)).flip(3)
