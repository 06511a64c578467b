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
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core.nn.fresh import uniform_
from core.nn.precision import wide, without_autocast
from core.nn.replacement import Replacement
from core.nn.scan import linear_scan

ENTRIES = {"cpu": 2**20, "cuda": 2**25}  # of the states that exist at the same time: as many as a device does well
LEAST_BLOCK = 16  # tokens
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
    block = max(LEAST_BLOCK, ENTRIES.get(x.device.type, ENTRIES["cuda"]) // max(1, state.numel()))
    outputs = []
    for parts in zip(*(part.split(block, dim=1) for part in (x, delta, B, C)), strict=True):
        y, state = checkpoint(_block, *parts, A, state, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _block(x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    decay = (delta[:, :, None] * A).exp()  # [batch, T, states, channels]
    states = linear_scan(decay, (delta * x)[:, :, None] * B[..., None], state)
    return (C[:, :, None] @ states)[:, :, 0], states[:, -1]


class SelectiveScan(Replacement):
    """The state space's own parameters: A, D and the bias of delta; B, C and delta come with the input.

    A_log is kept flat, as [states * channels], so that trainings do not decay it (they do decay matrices).
    """

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
