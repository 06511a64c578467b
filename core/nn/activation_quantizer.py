"""Activations as integer codes: with a static scale, or one for each tensor or token that is computed at run time.

A code q means `scale * (q - zero_point)`, so zero is exactly on every grid. Symmetric codes are -(2**(bits - 1) - 1) ..
2**(bits - 1) - 1: the largest value is a code itself, which a scale computed at run time can never overflow. Affine
codes use all 2**bits levels. Rounding is half to even.
Papers: https://arxiv.org/abs/1712.05877 (static ranges), https://arxiv.org/abs/2206.01861 (a scale for each token).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from core.nn.integer_linear import DTYPES, dtype_name
from core.nn.precision import wide

ActivationScale = Literal["static", "per-tensor", "per-token"]
SMALLEST_SCALE = 1e-30


class ActivationGrid(NamedTuple):
    """Scales, and zero points unless symmetric; both broadcast against the activations and hold float32 or float64."""

    scale: Tensor
    zero_point: Tensor | None
    bits: int

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        half = 2 ** (self.bits - 1)
        return (1 - half if self.zero_point is None else -half), half - 1

    def quantize(self, x: Tensor) -> Tensor:
        """The codes nearest to x, as floats."""
        codes = torch.round(wide(x) / self.scale)
        return (codes if self.zero_point is None else codes + self.zero_point).clamp(*self.limits)

    def dequantize(self, codes: Tensor) -> Tensor:
        """The values of codes."""
        return self.scale * (codes if self.zero_point is None else codes - self.zero_point)

    def nearest(self, x: Tensor) -> Tensor:
        """The values on the grid that are nearest to x."""
        return self.dequantize(self.quantize(x))

    def covers(self, x: Tensor) -> Tensor:
        """Which values lie within the grid's range, or less than half a step beyond it."""
        low, high = (self.dequantize(x.new_tensor(float(limit)).to(self.scale)) for limit in self.limits)
        return (wide(x) >= low - self.scale / 2) & (wide(x) <= high + self.scale / 2)


def activation_grid(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32
) -> ActivationGrid:
    """The grid for the range from `low` to `high`, widened to include zero; scales are rounded to `dtype`.

    A symmetric grid covers the larger of the two on both sides. A range that is empty has a small positive scale.
    """
    low, high = wide(low).clamp(max=0), wide(high).clamp(min=0)
    largest = 2 ** (bits - 1) - 1
    scale = torch.maximum(high, -low) / largest if symmetric else (high - low) / (2**bits - 1)
    scale = scale.clamp_min(SMALLEST_SCALE).to(dtype).to(scale.dtype)
    if symmetric:
        return ActivationGrid(scale, None, bits)
    return ActivationGrid(scale, torch.round(-low / scale).clamp(0, 2**bits - 1) - 2 ** (bits - 1), bits)


class ActivationQuantizer(nn.Module):
    """Rounds activations [..., d] to a grid of `bits` bits, 2 to 8.

    A static scale is a buffer, set once by `set_range`; `scale_dtype` is how it is stored, and casts do not change it.
    Otherwise each token, or each tensor that arrives, has the scale of its own range.
    """

    static_scale: Tensor
    static_zero_point: Tensor

    def __init__(
        self, bits: int, *, symmetric: bool = True, scale: ActivationScale = "per-token", scale_dtype: str = "float32"
    ):
        super().__init__()
        self.bits, self.symmetric, self.scale = bits, symmetric, scale
        self.scale_dtype = DTYPES[scale_dtype]
        if scale == "static":
            self.register_buffer("static_scale", torch.ones(1, dtype=self.scale_dtype))
            if not symmetric:
                self.register_buffer("static_zero_point", torch.zeros(1, dtype=torch.int8))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments, plain JSON, that construct an equal quantizer without its static scale."""
        return {
            "bits": self.bits,
            "symmetric": self.symmetric,
            "scale": self.scale,
            "scale_dtype": dtype_name(self.scale_dtype),
        }

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> Self:
        """Fix the static scale, and zero point, to those of a range of one element each."""
        assert self.scale == "static", "only a static quantizer has a range of its own"
        grid = activation_grid(low.reshape(1), high.reshape(1), self.bits, self.symmetric, self.scale_dtype)
        self.static_scale = grid.scale.to(self.scale_dtype)
        if grid.zero_point is not None:
            self.static_zero_point = grid.zero_point.to(torch.int8)
        return self

    def grid(self, x: Tensor) -> ActivationGrid:
        """The grid for x [..., d]: scales [..., 1] for each token, [1] for the whole tensor."""
        if self.scale == "static":
            zero_point = None if self.symmetric else self.static_zero_point.float()
            return ActivationGrid(self.static_scale.float(), zero_point, self.bits)
        if self.scale == "per-token":
            low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        else:
            low, high = x.amin().reshape(1), x.amax().reshape(1)
        return activation_grid(low, high, self.bits, self.symmetric)

    def forward(self, x: Tensor) -> Tensor:
        """The nearest values on the grid, in the dtype of x; the gradient passes straight through inside its range."""
        if not x.numel():
            return x
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.grid(x).nearest(x).to(x.dtype)
        rounded: Tensor = _StraightThrough.apply(x, self.grid(x.detach()))
        return rounded

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.arguments().items())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self._buffers.get("static_scale")
        super()._apply(fn, recurse)
        if before is not None and self.static_scale.dtype != before.dtype:
            self.static_scale = before.to(self.static_scale.device)
        return self


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is 1 inside the grid's range and 0 outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: ActivationGrid) -> Tensor:
        ctx.save_for_backward(grid.covers(x))
        return grid.nearest(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None
