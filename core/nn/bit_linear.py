"""Linear layer of ternary weights, whose inputs are normalized and rounded to int8 token by token.

Paper: https://arxiv.org/abs/2402.17764 (BitNet b1.58). The product of the codes is exact, summed in int32 by a kernel;
ternary codes are laid out as int8 for it, so what is smaller is the file, not the work.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.activation_quantizer import ActivationQuantizer
from core.nn.dynamic_int8_linear import cuda_multiply, float_multiply, has_onednn, onednn_multiply
from core.nn.format_linear import FormatLinear
from core.nn.precision import wide

EPSILON = 1e-6


def rms_normalized(x: Tensor, gain: Tensor) -> Tensor:
    """x / sqrt(mean x^2) * gain over the last axis, in float32 (float64 where x is)."""
    x = wide(x)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * gain


class BitInput(nn.Module):
    """What a `BitLinear` does to its inputs: RMSNorm with a gain [d], then 8 bits a token."""

    def __init__(self, d: int, gain: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((d,), gain))
        self.quantizer = ActivationQuantizer(8)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d] in the dtype of x; the gradient passes straight through the rounding."""
        rounded: Tensor = self.quantizer(rms_normalized(x, self.gain))
        return rounded.to(x.dtype)


class BitLinear(FormatLinear):
    """Ternary weights of one scale, and the gain of the norm before them."""

    def __init__(self, in_features: int, out_features: int, **format: Any):
        super().__init__(in_features, out_features, "ternary", block_rows=None, **format)
        self.gain = nn.Parameter(torch.ones(in_features, dtype=self.dtype))
        self.activation = ActivationQuantizer(8)

    @classmethod
    @torch.no_grad()
    def of_codes(cls, linear: nn.Linear, codes: Tensor, scale: Tensor, gain: Tensor) -> Self:
        """The layer that replaces `linear`: codes -1, 0, 1 [out, in], their scale [1] as it is stored, gain [in]."""
        packed = FormatLinear.of(
            linear,
            "ternary",
            (codes + 1).to(torch.uint8),
            scale.float().view(1, 1),
            block_rows=None,
            scale_dtype=scale.dtype,
        )
        made = cls(**cls._kept(packed.arguments())).to(linear.weight.device)
        made.codes, made.scales, made.bias = packed.codes, packed.scales, packed.bias
        made.gain.copy_(gain)
        return made.train(linear.training)

    def arguments(self) -> dict[str, Any]:
        return self._kept(super().arguments())

    def multiply(self, x: Tensor) -> Tensor:
        rows = rms_normalized(x, self.gain)
        if torch.is_grad_enabled() and rows.requires_grad:
            bias = None if self.bias is None else self.bias.to(rows.dtype)
            return F.linear(self.activation(rows), self.weight().to(rows.dtype), bias).to(x.dtype)
        grid = self.activation.grid(rows)
        product = (self._kernel or self._unprepared())(grid.quantize(rows).to(torch.int8)) * grid.scale
        if self.bias is not None:
            product = product + self.bias
        return product.to(x.dtype)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type == "cpu" and has_onednn():
            return "int8 oneDNN, scales by row"
        if device.type == "cuda" and self._fits_cuda():
            return "int8 cuBLASLt, scales by row"
        return None

    def prepare(self) -> None:
        if self.kernel(self.codes.device, torch.float32) is not None:
            lay_out = cuda_multiply if self.codes.is_cuda else onednn_multiply
            self._kernel = lay_out(self.signed(), self._row_scales())

    def signed(self) -> Tensor:
        """The codes -1, 0 and 1, int8 [out, in]."""
        element = self.number_format.element
        return element.decode(element.unpack(self.codes, self.in_features)).to(torch.int8)

    def _unprepared(self) -> Any:
        multiply = cuda_multiply if self.codes.is_cuda and self._fits_cuda() else float_multiply
        return multiply(self.signed(), self._row_scales())

    def _row_scales(self) -> Tensor:
        return self.scales.float().view(1).expand(self.out_features).contiguous()

    def _fits_cuda(self) -> bool:
        return self.in_features % 8 == 0 and self.out_features % 8 == 0

    @staticmethod
    def _kept(arguments: dict[str, Any]) -> dict[str, Any]:
        return {key: arguments[key] for key in ("in_features", "out_features", "scale_dtype", "bias", "dtype")}
