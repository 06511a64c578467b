"""The selective state space of Mamba: how fast a channel forgets, what it takes in and what it gives depends on x.

Paper: https://arxiv.org/abs/2312.00752, algorithm 2 with the discretisation of its code: h_t = exp(delta_t A) h_{t-1} +
delta_t B_t x_t and y_t = C_t h_t + D x_t, for each channel of x with a state of its own. Where the paper has a fused
kernel that keeps the states in fast memory, here blocks of tokens follow each other and only the state between two of
them is kept for the gradient; inside one the states are computed (again) by a scan.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from core.nn.fresh import uniform_
from core.nn.precision import wide, without_autocast
from core.nn.replacement import Replacement
from core.nn.scan import linear_scan, linear_scan_backward

ENTRIES = {"cpu": 2**18, "cuda": 2**25}  # of the states that exist at the same time: as many as a device does well
LEAST_WIDTH = 4  # of a block's segments, in tokens
FASTEST, SLOWEST = 0.1, 0.001  # delta at initialisation lies between them


def selective_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y [batch, T, channels] without the skip D x, and the last state [batch, states, channels].

    x and delta > 0 are [batch, T, channels], A < 0 [states, channels], B and C [batch, T, states]. Channels are the
    inner axis, along which all that is multiplied lies side by side.
    """
    if state is None:
        state = x.new_zeros(x.shape[0], *A.shape)
    if x.shape[1] == 1:
        state = (delta * A).exp() * state + B.mT * (delta * x)
        return C @ state, state
    entries = ENTRIES.get(x.device.type, ENTRIES["cuda"])
    block = (
        max(LEAST_WIDTH, math.isqrt(entries // max(1, state.numel()))) ** 2
    )  # a square: its segments need no padding
    outputs = []
    for parts in zip(*(part.split(block, dim=1) for part in (x, delta, B, C)), strict=True):
        y, state = _Block.apply(*parts, A, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


class _Block(torch.autograd.Function):
    """y and the last state of some tokens; their states are not kept, but computed again for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, delta, B, C, A, state)
        decay = (delta[:, :, None] * A).exp_()  # [batch, T, states, channels]
        states = linear_scan(decay, (delta * x)[:, :, None] * B[..., None], state)
        return (C[:, :, None] @ states)[:, :, 0], states[:, -1].clone()  # a view would keep all states alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor, by_last: Tensor) -> tuple[Tensor, ...]:
        x, delta, B, C, A, state = ctx.saved_tensors
        decay = (delta[:, :, None] * A).exp_()
        states = linear_scan(decay, (delta * x)[:, :, None] * B[..., None], state)
        by_C = (states @ by_y[..., None])[..., 0]
        by_input = linear_scan_backward(decay, C[..., None] * by_y[:, :, None], by_last)
        by_B = (by_input @ (delta * x)[..., None])[..., 0]
        by_step = (B[:, :, None] @ by_input)[:, :, 0]  # of delta x
        by_state = decay[:, 0] * by_input[:, 0]
        decay[:, 0].mul_(state)
        decay[:, 1:].mul_(states[:, :-1])
        by_exponent = decay.mul_(by_input)  # of delta A
        by_A = (by_exponent * delta[:, :, None]).sum(dim=(0, 1))
        by_delta = by_exponent.mul_(A).sum(dim=2) + by_step * x
        return by_step * delta, by_delta, by_B, by_C, by_A, by_state


class SelectiveScan(Replacement):
    """The state space's own parameters: A, D and the bias of delta; B, C and delta come with the input.

    A_log is kept flat, as [states * channels], so that trainings do not decay it (they do decay matrices).
    """

    no_onnx = "its selective scan writes states to memory outside the traced graph"

    def __init__(self, channels: int, n_states: int):
        super().__init__()
        self.channels, self.n_states = channels, n_states
        self.A_log = nn.Parameter(torch.zeros(n_states * channels))
        self.D = nn.Parameter(torch.ones(channels))
        self.delta_bias = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator | None) -> None:
        """A = -1, -2, ..; softplus(delta_bias) between 0.001 and 0.1, evenly in its logarithm; D = 1."""
        if self.A_log.is_meta:
            return
        self.A_log.copy_(torch.arange(1.0, self.n_states + 1).log().repeat_interleave(self.channels))
        nn.init.ones_(self.D)
        middle, half = (math.log(FASTEST) + math.log(SLOWEST)) / 2, (math.log(FASTEST) - math.log(SLOWEST)) / 2
        uniform_(self.delta_bias, half, generator)
        delta = (self.delta_bias + middle).exp()
        self.delta_bias.copy_(delta + (-(-delta).expm1()).log())  # the inverse of softplus

    def forward(
        self, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """y [batch, T, channels] and the last state, both float32; delta is as projected, before bias and softplus."""
        with without_autocast(x.device):
            x = wide(x)
            A = -wide(self.A_log).exp().view(self.n_states, self.channels)
            step = F.softplus(wide(delta) + wide(self.delta_bias))
            y, state = selective_scan(x, step, A, wide(B), wide(C), state)
            return y + wide(self.D) * x, state

    def arguments(self) -> dict[str, Any]:
        return {"channels": self.channels, "n_states": self.n_states}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"

    def macs(self, shape: torch.Size) -> int:
        """Four for each state and token: delta A, delta x B, the recurrence and C h; elementwise, so counted here."""
        return 4 * self.n_states * shape.numel()
