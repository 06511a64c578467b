"""RWKV-4's weighted key-value mean, for all tokens at once, without overflow, with its gradient.

Paper: https://arxiv.org/abs/2305.13048, equation 16 and appendix D. For each channel

    y_t = (sum over i < t of e^((t-1-i) w + k_i) v_i + e^(u + k_t) v_t) / (the same without v),  w = -exp(decay) < 0.

The state before a token is (a, b, p): numerator and denominator of the past, both divided by e^p. The authors' kernel
loops over tokens; here a tree does (`core.nn.rwkv.scan`), forwards for the sums and backwards for their gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.nn.replacement import Replacement
from core.nn.rwkv.scan import Sum, decayed_sums

NOTHING = -1e38  # p of an empty past; -inf would give nan where two of them are subtracted
MACS = 8  # a token and channel: two for each of a, b, numerator and denominator


def wkv(k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """y [B, T, C] of keys and values [B, T, C], and the state after them; `log_decay` is w and `bonus` u, both [C].

    `state` [B, 3, C] is (a, b, p) before the first token. All are float32 or float64 of one type. Gradients reach
    k, v, w and u, but neither state.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (k, v, log_decay, bonus)):
        result: tuple[Tensor, Tensor] = _Wkv.apply(k, v, log_decay, bonus, state)
        return result
    sums = _past_sums(k, v, log_decay, state)
    return _mean(k, v, bonus, sums)[0], _state_of(sums)


def empty_state(batch: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The state [B, 3, C] before any token."""
    state = torch.zeros(batch, 3, channels, dtype=dtype, device=device)
    state[:, 2] = NOTHING
    return state


def _past_sums(k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Sum:
    """Of the tokens and, in front of them, the state: sums of v and of 1 [B, 1 + T, 2, C] with their logarithms."""
    pairs = torch.stack((v, torch.ones_like(v)), dim=2)
    values = torch.cat((state[:, None, :2], pairs), dim=1)
    logs = torch.cat((state[:, None, 2:], k[:, :, None]), dim=1)
    return decayed_sums(values, logs, log_decay)


def _state_of(sums: Sum) -> Tensor:
    return torch.cat((sums[0][:, -1], sums[1][:, -1]), dim=1)


def _mean(k: Tensor, v: Tensor, bonus: Tensor, sums: Sum) -> tuple[Tensor, Tensor, Tensor]:
    """y, its denominator divided by e^m, and m: all [B, T, C]."""
    past, now = sums[1][:, :-1, 0], bonus + k
    m = torch.maximum(past, now)
    of_past, of_now = (past - m).exp_(), (now - m).exp_()
    a, b = sums[0][:, :-1].unbind(2)
    denominator = torch.addcmul(of_now, of_past, b)
    return (of_past * a).addcmul_(of_now, v).div_(denominator), denominator, m


class _Wkv(torch.autograd.Function):
    """The gradient is a sum over later tokens that decays as the forward one does: the same tree, turned round."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor, state: Tensor) -> Any:
        sums = _past_sums(k, v, log_decay, state)
        y, denominator, m = _mean(k, v, bonus, sums)
        ctx.save_for_backward(k, v, log_decay, bonus, *sums, y, denominator, m)
        after = _state_of(sums)
        ctx.mark_non_differentiable(after)
        return y, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        k, v, log_decay, bonus, values, logs, y, denominator, m = ctx.saved_tensors
        scaled = torch.stack((grad, -grad * y), dim=2) / denominator[:, :, None]  # of numerator and denominator, by e^m
        later, later_logs = (x.flip(1) for x in decayed_sums(scaled.flip(1), -m.flip(1)[:, :, None], log_decay))
        later, later_logs = later[:, 1:], later_logs[:, 1:, 0]  # of the tokens after t, for t = 0 .. T - 2

        now = (bonus + k - m).exp_()  # e^(u + k_t), by e^m
        own = now[:, :, None] * scaled
        grad_v, of_one = own[:, :, 0], own[:, :, 1]
        grad_now = torch.addcmul(of_one, grad_v, v)
        grad_k, grad_v = grad_now.clone(), grad_v.clone()
        reached = (later_logs + k[:, :-1]).exp_()
        grad_v[:, :-1].addcmul_(reached, later[:, :, 0])
        grad_k[:, :-1] += reached * (later[:, :, 0] * v[:, :-1] + later[:, :, 1])

        aged = (later_logs + log_decay + logs[:, :-2, 0]).exp_()  # what was before t reaches those after it
        grad_decay = (aged * (later * values[:, :-2]).sum(2)).sum((0, 1))
        return grad_k, grad_v, grad_decay, grad_now.sum((0, 1)), None


class Wkv(Replacement):
    """The mean with its decay and bonus as parameters; computes in float32 or more, whatever it is given."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.decay = nn.Parameter(torch.zeros(dim))
        self.bonus = nn.Parameter(torch.zeros(dim))

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def kernel(self, *_: object) -> str:
        return "dense"

    def macs(self, shape: torch.Size) -> int:
        """Those of the recurrence: the counter of operations sees no products but those of matrices."""
        return MACS * shape.numel()

    def forward(self, k: Tensor, v: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y [B, T, dim] in the type of v, and the state [B, 3, dim]; see `wkv`."""
        dtype = torch.promote_types(v.dtype, torch.float32)
        if state is None:
            state = empty_state(len(k), self.dim, dtype, k.device)
        y, state = wkv(k.to(dtype), v.to(dtype), -self.decay.to(dtype).exp(), self.bonus.to(dtype), state)
        return y.to(v.dtype), state
