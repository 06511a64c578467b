"""A first-order linear recurrence over a long axis without a step for every place of it.

h_t = a_t h_{t-1} + b_t is cut into segments of about sqrt(T) steps, which advance together: once to learn what each
ends with if it begins with nothing, and once more from the states that were carried through them. 3 sqrt(T) steps in
all, and only products of the a_t, never quotients: exact also where a decay is so strong that a quotient would
overflow. Its gradient is the same recurrence backwards. Neither function is differentiated by autograd.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_scan(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """All h_t [B, T, ...] of factors a and inputs b [B, T, ...], from the state `initial` [B, ...] before the first."""
    length = a.shape[1]
    a, b = _segments(a, 1.0), _segments(b, 0.0)
    width = a.shape[2]
    end, product = b[:, :, 0].clone(), a[:, :, 0].clone()
    for place in range(1, width):
        torch.addcmul(b[:, :, place], a[:, :, place], end, out=end)
        product.mul_(a[:, :, place])
    state = _carried(end, product, initial)
    h = torch.empty_like(b)
    for place in range(width):
        state = torch.addcmul(b[:, :, place], a[:, :, place], state, out=h[:, :, place])
    return h.flatten(1, 2)[:, :length]


def linear_scan_backward(a: Tensor, upstream: Tensor, last: Tensor) -> Tensor:
    """dL/db_t = g_t = upstream_t + a_{t+1} g_{t+1} [B, T, ...], with `last` [B, ...] added to the last one.

    `upstream` is dL/dh_t through all but the recurrence. Then dL/da_t = g_t h_{t-1}, and dL/dh_0 = a_1 g_1.
    """
    length = a.shape[1]
    a, upstream = _segments(a, 1.0), _segments(upstream, 0.0)
    width = a.shape[2]
    end, product = torch.zeros_like(a[:, :, 0]), torch.ones_like(a[:, :, 0])  # what is passed on is a_t g_t
    for place in reversed(range(width)):
        end.add_(upstream[:, :, place]).mul_(a[:, :, place])
        product.mul_(a[:, :, place])
    passed = _carried(end.flip(1), product.flip(1), last).flip(1)
    g = torch.empty_like(upstream)
    for place in reversed(range(width)):
        torch.add(upstream[:, :, place], passed, out=g[:, :, place])
        passed = a[:, :, place] * g[:, :, place]
    return g.flatten(1, 2)[:, :length]


def _segments(x: Tensor, padding: float) -> Tensor:
    """[B, T, ...] as [B, n, width, ...], padded behind the last place."""
    length = x.shape[1]
    width = math.isqrt(length - 1) + 1
    n_segments = -(-length // width)
    if n_segments * width > length:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, n_segments * width - length), value=padding)
    return x.unflatten(1, (n_segments, width))


def _carried(end: Tensor, product: Tensor, initial: Tensor) -> Tensor:
    """What each segment begins with [B, n, ...]: `end` and `product` are what it adds to it and multiplies it with."""
    states = [initial]
    for segment in range(end.shape[1] - 1):
        states.append(torch.addcmul(end[:, segment], product[:, segment], states[-1]))
    return torch.stack(states, dim=1)
