"""Inputs of a layer on an elastic grid whose step and shift are learned: BiT, https://arxiv.org/abs/2205.13016."""

import torch
from torch import Tensor, nn

from core.algorithms.fake_quantization import STEP_RANGE, elastic, initial_step, step_gradient_scale, stored
from core.nn.binary_linear import elastic_limits
from core.nn.precision import wide


class ElasticInput(nn.Module):
    """Rounds inputs [..., d] to `bits` bits, about a shift: with `signed` to codes on both sides of it."""

    smallest: Tensor

    def __init__(self, d: int, magnitude: float, bits: int, *, signed: bool, dtype: torch.dtype):
        super().__init__()
        self.d, self.bits, self.signed, self.dtype = d, bits, signed, dtype
        self.step = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))
        self.register_buffer("smallest", torch.zeros(1))
        self.restart(bits, magnitude)

    @torch.no_grad()
    def restart(self, bits: int, magnitude: float) -> None:
        """Round to so many bits from now on, with the first step for inputs of this mean magnitude."""
        self.bits = bits
        is_sign = bits == 1 and self.signed  # a sign's best step is the mean magnitude itself
        high = elastic_limits(bits, self.signed)[1]
        self.step.copy_(torch.tensor(magnitude) if is_sign else initial_step(torch.tensor(magnitude), high))
        self.smallest.copy_(self.step / STEP_RANGE)

    def forward(self, x: Tensor) -> Tensor:
        """The nearest values of the grid, in the dtype of x."""
        step, shift = (stored(own, self.dtype) for own in (self.step, self.shift))
        scale = step_gradient_scale(self.d, elastic_limits(self.bits, self.signed)[1])
        return elastic(wide(x), step, shift, self.bits, self.signed, scale).to(x.dtype)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Keep the step above zero."""
        self.step.copy_(torch.maximum(self.step, self.smallest))
