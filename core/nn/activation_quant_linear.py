"""Linear layer with packed integer weights whose inputs are rounded to integer codes too (W8A8, W4A8, W6A6, W4A4).

Papers: https://arxiv.org/abs/1712.05877 (integer arithmetic), https://arxiv.org/abs/2211.10438 (scales of activations).
With symmetric weights of one scale for each output the product of the codes is summed exactly, in int32 by a kernel or
in floats wide enough, whatever the number of bits: int8 kernels multiply 4-bit codes too. With groups or an affine grid
no kernel here multiplies the codes: their values are multiplied in float32.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.activation_quantizer import ActivationGrid, ActivationQuantizer
from core.nn.dynamic_int8_linear import Multiply, cuda_multiply, float_multiply, has_onednn, onednn_multiply
from core.nn.quant_linear import QuantLinear

_SCALES = {"per-token": "scales by row", "per-tensor": "scales by tensor", "static": "static scales"}


class QuantizedInput(QuantLinear):
    """What layers with quantized activations share, whichever way they store their codes; `activation` rounds inputs.

    `activation` is given as the quantizer's arguments, the rest as those of the layer without it.
    """

    def __init__(self, in_features: int, out_features: int, bits: int, *, activation: dict[str, Any], **format: Any):
        super().__init__(in_features, out_features, bits, **format)
        self.activation = ActivationQuantizer(**activation)

    @classmethod
    def around(cls, layer: QuantLinear, activation: ActivationQuantizer) -> Self:
        """The layer with the same weights, shared with `layer`, whose inputs `activation` rounds."""
        made = cls(**layer.arguments(), activation=activation.arguments())
        for name, buffer in layer._buffers.items():
            setattr(made, name, buffer)
        made.bias, made.activation = layer.bias, activation.to(layer.codes.device)
        return made.train(layer.training)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "activation": self.activation.arguments()}

    def multiply(self, x: Tensor) -> Tensor:
        wants_gradient = torch.is_grad_enabled() and x.requires_grad
        if wants_gradient or not self._is_integer:
            bias = None if self.bias is None else self.bias.float()
            return F.linear(self.activation(x.float()), self.weight(), bias).to(x.dtype)
        grid = self.activation.grid(x)
        product = (self._kernel or self._unprepared())(grid, grid.quantize(x).to(torch.int8))
        if self.bias is not None:
            product.add_(self.bias)
        return product.to(x.dtype)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if not self._is_integer:
            return None
        if device.type == "cpu" and has_onednn():
            return f"int8 oneDNN, {_SCALES[self.activation.scale]}"
        if device.type == "cuda" and self._fits_cuda():
            return f"int8 cuBLASLt, {_SCALES[self.activation.scale]}"
        return None

    def prepare(self) -> None:
        if self.kernel(self.codes.device, torch.float32) is not None:
            self._kernel = self._product(onednn_multiply if self.codes.device.type == "cpu" else cuda_multiply)

    @property
    def _is_integer(self) -> bool:
        """Whether the product of codes is one sum: weights have one scale for each output and no zero points."""
        return self.group_size is None and self.symmetric

    def _fits_cuda(self) -> bool:
        return self.in_features % 8 == 0 and self.out_features % 8 == 0

    def _unprepared(self) -> Any:
        if self.codes.is_cuda and self._fits_cuda():
            return self._product(cuda_multiply)
        largest_sum = self.in_features * 2 ** (self.bits + self.activation.bits - 2)
        exact = torch.float32 if largest_sum < 2**24 else torch.float64
        return self._product(lambda codes, scales: float_multiply(codes, scales, exact))

    def _product(self, lay_out: Any) -> Any:
        """A function of a grid and codes int8 [rows, in] -> float32 [rows, out], without the bias.

        A zero point z takes z times the sum of an output's weights off the product of the codes.
        """
        codes, scales = self._signed(), self.scales.float()[:, 0]
        multiply: Multiply = lay_out(codes, scales)
        sums = codes.sum(1, dtype=torch.int32).float() * scales  # [out]

        def run(grid: ActivationGrid, rows: Tensor) -> Tensor:
            product = multiply(rows)
            if grid.zero_point is not None:
                product = torch.addcmul(product, grid.zero_point, sums, value=-1)
            return product.mul_(grid.scale)

        return run

    def _signed(self) -> Tensor:
        """The codes less their zero points, int8 [out, in]."""
        return (self.unpacked()[0].to(torch.int16) - 2 ** (self.bits - 1)).to(torch.int8)


class ActivationQuantLinear(QuantizedInput):
    """A `QuantLinear` whose inputs are quantized."""
