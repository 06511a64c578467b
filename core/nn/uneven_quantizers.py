"""Quantizers whose levels lie unevenly: powers of two, two ranges with a step each, or a step for each
head or channel.

Papers: https://arxiv.org/abs/2212.08254 (RepQ-ViT: powers of the root of two), https://arxiv.org/abs/2111.12293
(PTQ4ViT: twin ranges), https://arxiv.org/abs/2111.13824 (FQ-ViT: powers of two, for probabilities and for channels).
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from core.nn.activation_quantizer import SMALLEST_SCALE, ActivationQuantizer
from core.nn.integer_linear import DTYPES, dtype_name
from core.nn.precision import is_precise, wide

GELU_MINIMUM = 0.16997  # -min(gelu)
MAX_EXPONENT = 3  # FQ-ViT: a channel's step is 1, 2, 4 or 8 times the smallest


class UnevenQuantizer(nn.Module):
    """Base: casts do not change the `scale_dtype` that `steps` is stored in; the gradient passes straight through."""

    steps: Tensor

    def __init__(self, bits: int, scale_dtype: str):
        super().__init__()
        self.bits, self.scale_dtype = bits, DTYPES[scale_dtype]
        self.register_buffer("steps", torch.ones(1, dtype=self.scale_dtype))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments, plain JSON, for `make_quantizer`."""
        return {"bits": self.bits, "scale_dtype": dtype_name(self.scale_dtype)}

    def nearest(self, x: Tensor) -> Tensor:
        """The levels nearest to x, which is float32 or wider."""
        raise NotImplementedError(type(self).__name__)

    def set_steps(self, steps: Tensor) -> Self:
        """Fix the steps, usually one; what the stored dtype does not hold precisely is stored as float32."""
        self.to(steps.device)
        steps = steps.detach().reshape(self.steps.shape).float().clamp_min(SMALLEST_SCALE)
        if not is_precise(steps, self.scale_dtype):
            self.scale_dtype = torch.float32
        self.steps = steps.to(self.scale_dtype)
        return self

    def forward(self, x: Tensor) -> Tensor:
        rounded = self.nearest(wide(x.detach())).to(x.dtype)
        return x + (rounded - x).detach() if torch.is_grad_enabled() and x.requires_grad else rounded

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.steps
        super()._apply(fn, recurse)
        if self.steps.dtype != before.dtype:
            self.steps = before.to(self.steps.device)
        return self


class LogQuantizer(UnevenQuantizer):
    """Levels s * 2**(-q / per_octave) for values in 0..s; a value whose code would be 2**bits or more becomes 0.

    `steps` is s. With one level per octave a product is a shift; with two the odd codes have a factor of root two.
    """

    def __init__(self, bits: int, *, per_octave: Literal[1, 2] = 1, scale_dtype: str = "float32"):
        super().__init__(bits, scale_dtype)
        self.per_octave = per_octave

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "kind": "log", "per_octave": self.per_octave}

    def nearest(self, x: Tensor) -> Tensor:
        step = self.steps.float()
        codes = torch.round(-self.per_octave * torch.log2(x / step)).clamp_min(0)
        shifts = torch.floor(-codes / self.per_octave)
        is_between = codes.remainder(2) if self.per_octave == 2 else 0.0
        values = step * torch.exp2(shifts) * (1 + (2**0.5 - 1) * is_between)
        return torch.where(codes < 2**self.bits, values, 0.0)


class TwinQuantizer(UnevenQuantizer):
    """Two ranges of M = 2**(bits - 1) levels, one bit choosing between them; a value belongs to exactly one.

    `softmax`: `steps` is the split; above it levels are 1 / (M - 1) apart, below it split / (M - 1). `gelu`: `steps` is
    the step of positive values; negative ones, never below -0.16997, have steps of 0.16997 / M.
    """

    def __init__(self, bits: int, *, of: Literal["softmax", "gelu"], scale_dtype: str = "float32"):
        super().__init__(bits, scale_dtype)
        self.of = of

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "kind": "twin", "of": self.of}

    def nearest(self, x: Tensor) -> Tensor:
        levels, step = 2 ** (self.bits - 1), self.steps.float()
        if self.of == "softmax":
            lower, upper, split = step / (levels - 1), torch.ones_like(step) / (levels - 1), step
            below = torch.round(x / lower).clamp(0, levels - 1) * lower
        else:
            lower, upper, split = torch.full_like(step, GELU_MINIMUM / levels), step, torch.zeros_like(step)
            below = torch.round(x / lower).clamp(-levels, 0) * lower
        above = torch.round(x / upper).clamp(0, levels - 1) * upper
        return torch.where(x >= split, above, below)  # their sum would count a value twice


class HeadQuantizer(UnevenQuantizer):
    """Symmetric levels with a step for each head of x [B, heads, T, d]; `steps` are [heads, 1, 1]."""

    def __init__(self, bits: int, *, heads: int, scale_dtype: str = "float32"):
        super().__init__(bits, scale_dtype)
        self.heads = heads
        self.steps = torch.ones(heads, 1, 1, dtype=self.scale_dtype)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "kind": "heads", "heads": self.heads}

    def nearest(self, x: Tensor) -> Tensor:
        step, largest = self.steps.float(), 2 ** (self.bits - 1) - 1
        return torch.round(x / step).clamp(-largest, largest) * step


class PowerOfTwoQuantizer(UnevenQuantizer):
    """Steps of `channels` that differ by powers of two, with one zero point: step / 8 * 2**exponent, exponent 0..3."""

    exponents: Tensor  # uint8 [channels]
    zero_point: Tensor  # int16 [1]

    def __init__(self, bits: int, *, channels: int, scale_dtype: str = "float32"):
        super().__init__(bits, scale_dtype)
        self.channels = channels
        self.register_buffer("exponents", torch.zeros(channels, dtype=torch.uint8))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int16))

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "kind": "power-of-two", "channels": self.channels}

    def fit(self, x: Tensor, low: Tensor, high: Tensor) -> Self:
        """The step of the range from `low` to `high`, and for each channel of x [n, channels] the best exponent."""
        low, high, largest = low.clamp(max=0), high.clamp(min=0), 2**self.bits - 1
        self.set_steps((high - low) / largest)
        self.zero_point = torch.round(-low / self.steps.float()).clamp(0, largest).to(torch.int16)
        errors = []
        for exponent in range(MAX_EXPONENT + 1):
            self.exponents = torch.full_like(self.exponents, exponent)
            errors.append((self.nearest(x) - x).square().mean(0))
        self.exponents = torch.stack(errors).argmin(0).to(torch.uint8)
        return self

    def nearest(self, x: Tensor) -> Tensor:
        step = self.steps.float() * torch.exp2(self.exponents.float() - MAX_EXPONENT)
        codes = (torch.round(x / step) + self.zero_point).clamp(0, 2**self.bits - 1)
        return step * (codes - self.zero_point)


AnyQuantizer = ActivationQuantizer | UnevenQuantizer
_KINDS: dict[str, Callable[..., AnyQuantizer]] = {
    "uniform": ActivationQuantizer,
    "log": LogQuantizer,
    "twin": TwinQuantizer,
    "heads": HeadQuantizer,
    "power-of-two": PowerOfTwoQuantizer,
}


def make_quantizer(kind: str = "uniform", **arguments: Any) -> AnyQuantizer:
    """The quantizer that `arguments()` of an equal one describe."""
    return _KINDS[kind](**arguments)
