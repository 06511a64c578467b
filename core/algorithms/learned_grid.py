"""Uniform grids whose steps are learned: LSQ, https://arxiv.org/abs/1902.08153."""

import torch
from torch import Tensor, nn

from core.algorithms.fake_quantization import STEP_RANGE, learned_step, step_gradient_scale, stored
from core.nn.activation_quantizer import ActivationQuantizer
from core.nn.integer_linear import dtype_name
from core.nn.precision import wide


class LearnedGrid(nn.Module):
    """Rounds values to grids of which each has its learned step: weights in rows [n_steps, N], or inputs with one."""

    smallest: Tensor

    def __init__(self, first: Tensor, bits: int, n_values: int, *, signed: bool, dtype: torch.dtype):
        super().__init__()
        self.bits, self.n_values, self.dtype = bits, n_values, dtype
        self.set_sign(signed)
        self.step = nn.Parameter(first.clone())  # [n_steps]
        self.register_buffer("smallest", first / STEP_RANGE)

    def set_sign(self, signed: bool) -> None:
        """Have codes on both sides of zero, or none below it."""
        self.low: int = -(2 ** (self.bits - 1)) if signed else 0
        self.high: int = self.low + 2**self.bits - 1
        self.gradient_scale = step_gradient_scale(self.n_values, self.high)

    def forward(self, x: Tensor) -> Tensor:
        """Nearest values on the grid, in the shape and dtype of x."""
        rows = wide(x) if len(self.step) == 1 else wide(x).view(len(self.step), -1)
        steps = stored(self.step, self.dtype).view(-1, *[1] * (rows.dim() - 1))
        return learned_step(rows, steps, self.low, self.high, self.gradient_scale).view_as(x).to(x.dtype)

    def stored_steps(self) -> Tensor:
        """[n_steps], in the dtype that they are stored in."""
        return self.step.detach().to(self.dtype)

    def quantizer(self) -> ActivationQuantizer:
        """The same grid of one step for the inputs of a packed layer."""
        made = ActivationQuantizer(self.bits, symmetric=False, scale="static", scale_dtype=dtype_name(self.dtype))
        made.static_scale = self.stored_steps()
        lowest = -(2 ** (self.bits - 1))  # its smallest code
        made.static_zero_point = torch.full_like(made.static_scale, lowest - self.low, dtype=torch.int8)
        return made
