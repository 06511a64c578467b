"""o_n = q_n S_n with S_n = gamma S_{n-1} + k_n^T v_n, in three forms that agree: parallel, recurrent, chunkwise.

Papers: https://arxiv.org/abs/2307.08621 (RetNet, sections 2.1 to 2.3: a gamma of its own for each head) and
https://arxiv.org/abs/2006.16236 (linear attention: gamma = 1). Nothing is normalised here. q and k are
[B, heads, T, d_k], v [B, heads, T, d_v], the state S [B, heads, d_k, d_v] and `log_decay` [heads] = log gamma <= 0;
decays are only ever raised to powers >= 0, so that none overflows.
"""

import torch
from torch import Tensor

CHUNK = 64  # tokens; inside a chunk work grows with its square, between chunks a state is written for each


def parallel(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """(Q K^T * D) V with D_nm = gamma^(n - m) for n >= m, else 0: all tokens at once, T x T scores."""
    return (q @ k.transpose(-2, -1) * _decays_between(q.shape[2], log_decay).to(q)) @ v


def recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Token after token: the outputs, and the state after the last."""
    state = _empty_state(k, v) if state is None else state
    decay = log_decay.exp().to(q)[:, None, None]
    outputs = []
    for n in range(q.shape[2]):
        state = decay * state + k[:, :, n, :, None] * v[:, :, n, None, :]
        outputs.append(q[:, :, n : n + 1] @ state)
    return torch.cat(outputs, dim=2), state


def chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Parallel within chunks, recurrent from chunk to chunk: work and memory linear in T; outputs and last state."""
    length = q.shape[2]
    whole = length - length % chunk
    if 0 < whole < length:
        first, state = chunkwise(q[:, :, :whole], k[:, :, :whole], v[:, :, :whole], log_decay, state, chunk)
        last, state = chunkwise(q[:, :, whole:], k[:, :, whole:], v[:, :, whole:], log_decay, state, chunk)
        return torch.cat((first, last), dim=2), state
    chunk = min(chunk, length)
    place = torch.arange(chunk, device=q.device)

    def decay(steps: Tensor) -> Tensor:  # [heads, 1, len(steps), 1]
        return (log_decay[:, None] * steps).exp().to(q)[:, None, :, None]

    q, k, v = (x.unflatten(2, (-1, chunk)) for x in (q, k, v))  # [B, heads, n, chunk, d]
    inner = (q @ k.transpose(-2, -1) * _decays_between(chunk, log_decay).to(q)[:, None]) @ v
    added = (k * decay(chunk - 1 - place)).transpose(-2, -1) @ v  # [B, heads, n, d_k, d_v]
    state = _empty_state(k, v) if state is None else state
    before, over_chunk = [], (log_decay * chunk).exp().to(q)[:, None, None]
    for own in added.unbind(2):
        before.append(state)
        state = over_chunk * state + own
    cross = (q * decay(place + 1)) @ torch.stack(before, dim=2)
    return (inner + cross).flatten(2, 3), state


def _decays_between(length: int, log_decay: Tensor) -> Tensor:
    """D [heads, length, length]."""
    place = torch.arange(length, device=log_decay.device)
    distance = (place[:, None] - place[None, :]).clamp(min=0)
    return (log_decay[:, None, None] * distance).exp().tril()


def _empty_state(k: Tensor, v: Tensor) -> Tensor:
    return k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
