"""Rounding inside a training: grid values in the forward pass, and gradients that pass through the rounding.

Papers: https://arxiv.org/abs/1902.08153 (LSQ: learned steps), https://arxiv.org/abs/2402.17764 (BitNet b1.58: ternary
weights), https://arxiv.org/abs/2205.13016 (BiT: binary weights, elastic activations). Steps and scales are rounded to
the dtype that they will be stored in, so that the packed layer computes with exactly the numbers of the training.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.nn.binary_linear import elastic_limits, signs

STEP_RANGE = 64  # a learned step keeps at least this share of its first size
Rounding = Callable[[Tensor, torch.dtype], Tensor]  # of weights [n, ...] with a scale each, as `dtype` holds it


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Exactly `value`, with the gradient of `source`."""
    return value.detach() + (source - source.detach())


def stored(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale as `dtype` holds it, in the scale's own dtype; the gradient passes through."""
    return straight_through(scale.to(dtype).to(scale.dtype), scale)


def step_gradient_scale(n_values: int, high: int) -> float:
    """LSQ's factor on the gradient of a step that `n_values` values share: 1 / sqrt(N Qp)."""
    return 1 / math.sqrt(n_values * high)


def initial_step(mean_magnitude: Tensor, high: int) -> Tensor:
    """LSQ's first step: 2 mean|v| / sqrt(Qp)."""
    return 2 * mean_magnitude / math.sqrt(high)


def learned_step(v: Tensor, step: Tensor, low: int, high: int, gradient_scale: float = 1.0) -> Tensor:
    """The values of v on the grid `step * (low..high)`; `step` broadcasts against v.

    The gradient by the step is round(v/s) - v/s inside the range, `low` or `high` outside, times `gradient_scale`.
    """
    step = straight_through(step, gradient_scale * step)
    ratio = (v / step).clamp(low, high)
    return straight_through(ratio.round(), ratio) * step


def step_codes(v: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """The codes in low..high that `learned_step` rounds v to, as floats."""
    return (v / step).clamp(low, high).round()


def ternary_scale(weight: Tensor) -> Tensor:
    """BitNet's scale of each matrix of weight [n, ...]: its mean magnitude, at least 1e-5; [n]."""
    return weight.flatten(1).abs().mean(1).clamp_min(1e-5)


def ternary_codes(weight: Tensor, scale: Tensor) -> Tensor:
    """Codes -1, 0 or 1, as floats, of weight [n, ...] with scales [n]."""
    return (weight / _along(scale, weight)).round().clamp(-1, 1)


def ternary(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Each matrix of weight [n, ...] in at most three values; the gradient passes straight through."""
    scale = ternary_scale(weight.detach()).to(dtype).to(weight.dtype)
    return straight_through(_along(scale, weight) * ternary_codes(weight.detach(), scale), weight)


def binary_scale(weight: Tensor) -> Tensor:
    """BiT's scale of each matrix of weight [n, ...]: the mean magnitude about its mean; [n]."""
    return _centred(weight).flatten(1).abs().mean(1)


def binary_signs(weight: Tensor) -> Tensor:
    """-1 or 1, shaped like weight [n, ...]: the sign about each matrix's mean, 1 at the mean itself."""
    return signs(_centred(weight))


def binary(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Each matrix of weight [n, ...] in two values; the gradient passes straight through."""
    scale = binary_scale(weight.detach()).to(dtype).to(weight.dtype)
    return straight_through(_along(scale, weight) * binary_signs(weight.detach()), weight)


def elastic(x: Tensor, step: Tensor, shift: Tensor, bits: int, signed: bool, gradient_scale: float = 1.0) -> Tensor:
    """BiT's elastic activations with a learned step (alpha) and shift (beta); see `core.nn.binary_linear`.

    With more bits than one, or without signs, gradients are LSQ's. Of signs the gradient by the step is the sign,
    and x (and the shift, with the opposite sign) has a gradient where |x - shift| is at most the step.
    """
    step = straight_through(step, gradient_scale * step)
    centred = x - straight_through(shift, gradient_scale * shift)
    low, high = elastic_limits(bits, signed)
    if bits == 1 and signed:
        ratio = (centred / step.detach()).clamp(-1, 1)
        return straight_through(signs(centred), ratio) * step
    ratio = (centred / step).clamp(low, high)
    return straight_through(ratio.round(), ratio) * step


class RoundedMatrices(nn.Module):
    """Parametrization of a weight of one or more matrices [n * out, in], each rounded with a scale of its own."""

    def __init__(self, n_matrices: int, dtype: torch.dtype, rounding: Rounding):
        super().__init__()
        self.n_matrices, self.dtype, self.rounding = n_matrices, dtype, rounding

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight."""
        return self.rounding(weight.view(self.n_matrices, -1), self.dtype).view_as(weight)


def _centred(weight: Tensor) -> Tensor:
    return weight - _along(weight.flatten(1).mean(1), weight)


def _along(scale: Tensor, weight: Tensor) -> Tensor:
    """Scales [n] in a shape that broadcasts against weight [n, ...]."""
    return scale.view(-1, *[1] * (weight.dim() - 1))
