"""Linear layer of binary weights whose inputs are rounded to an elastic grid of one or a few bits.

Paper: https://arxiv.org/abs/2205.13016 (BiT). Inputs mean `step * code`: codes are {0, 1} or {-1, 1} of one bit, see
`elastic_codes`. No kernel here multiplies bits: their values are multiplied in float32.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.format_linear import FormatLinear
from core.nn.integer_linear import DTYPES, dtype_name
from core.nn.precision import wide


def elastic_limits(bits: int, signed: bool) -> tuple[int, int]:
    """The smallest and the largest code of elastic activations."""
    if not signed:
        return 0, 2**bits - 1
    return (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def elastic_codes(x: Tensor, step: Tensor, shift: Tensor, bits: int, signed: bool) -> Tensor:
    """The codes of x as floats: round(clip((x - shift) / step)), and of one bit with sign sign(x - shift).

    Of zero the sign is 1.
    """
    if bits == 1 and signed:
        return signs(x - shift)
    return ((x - shift) / step).clamp(*elastic_limits(bits, signed)).round()


def signs(x: Tensor) -> Tensor:
    """-1 or 1, the latter of zero."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class BinaryLinear(FormatLinear):
    """Weights -scale or scale; inputs of `activation_bits` with a `step` and a `shift`, stored in `scale_dtype`."""

    step: Tensor
    shift: Tensor

    def __init__(self, in_features: int, out_features: int, *, activation_bits: int, signed: bool, **format: Any):
        super().__init__(in_features, out_features, "binary", block_rows=None, **format)
        self.activation_bits, self.signed = activation_bits, signed
        for name, value in (("step", 1.0), ("shift", 0.0)):
            self.register_buffer(name, torch.full((1,), value, dtype=DTYPES[self.scale_dtype]))

    @classmethod
    @torch.no_grad()
    def of_signs(
        cls,
        linear: nn.Linear,
        weight_signs: Tensor,
        scale: Tensor,
        step: Tensor,
        shift: Tensor,
        *,
        activation_bits: int,
        signed: bool,
    ) -> Self:
        """The layer that replaces `linear`: signs [out, in], and scale, step and shift [1], stored in scale's dtype."""
        made = cls(
            linear.in_features,
            linear.out_features,
            activation_bits=activation_bits,
            signed=signed,
            scale_dtype=dtype_name(scale.dtype),
            bias=linear.bias is not None,
            dtype=dtype_name(linear.weight.dtype),
        ).to(linear.weight.device)
        made.codes = made.number_format.element.pack((weight_signs > 0).to(torch.uint8))
        made.scales, made.step, made.shift = scale.view(1, 1), step.to(scale.dtype), shift.to(scale.dtype)
        if made.bias is not None:
            made.bias.copy_(linear.bias)
        return made.train(linear.training)

    def arguments(self) -> dict[str, Any]:
        kept = ("in_features", "out_features", "scale_dtype", "bias", "dtype")
        format = {key: value for key, value in super().arguments().items() if key in kept}
        return {**format, "activation_bits": self.activation_bits, "signed": self.signed}

    def multiply(self, x: Tensor) -> Tensor:
        rows, step, shift = wide(x), self.step.float(), self.shift.float()
        rounded = step * elastic_codes(rows.detach(), step, shift, self.activation_bits, self.signed)
        if torch.is_grad_enabled() and x.requires_grad:  # passes where x lies within the grid
            low, high = elastic_limits(self.activation_bits, self.signed)
            clipped = ((rows - shift) / step).clamp(low, high) * step
            rounded = rounded + (clipped - clipped.detach())
        bias = None if self.bias is None else self.bias.to(rounded.dtype)
        return F.linear(rounded, self.weight().to(rounded.dtype), bias).to(x.dtype)
