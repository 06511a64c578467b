"""A packed linear layer of any format whose inputs are rounded to integer codes before it multiplies them.

For codes that no kernel here multiplies: weights in number formats and palettes, and inputs whose levels lie unevenly.
Integer weights with inputs on an even grid are `ActivationQuantLinear`.
"""

from typing import Any, Self

import torch
from torch import Tensor

from core.nn.integer_linear import IntegerLinear
from core.nn.replacement import Replacement
from core.nn.uneven_quantizers import AnyQuantizer, make_quantizer


class RoundedInput(Replacement):
    """linear(activation(x)); `activation` is given as the quantizer's arguments."""

    linear: Any

    def __init__(self, in_features: int, out_features: int, *, activation: dict[str, Any]):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.activation = make_quantizer(**activation)
        self.linear = None

    @classmethod
    def around(cls, layer: IntegerLinear, activation: AnyQuantizer) -> Self:
        """The layer with its inputs rounded."""
        made = cls(layer.in_features, layer.out_features, activation=activation.arguments())
        made.activation = activation.to(layer.codes.device)
        made.adopt(layer)
        return made.train(layer.training)

    def adopt(self, original: torch.nn.Module) -> None:
        self.linear = original

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        output: Tensor = self.linear(self.activation(x))
        return output

    def weight(self) -> Tensor:
        """The dequantized weights, float32 [out, in]."""
        weight: Tensor = self.linear.weight()
        return weight

    def arguments(self) -> dict[str, Any]:
        activation = self.activation.arguments()
        return {"in_features": self.in_features, "out_features": self.out_features, "activation": activation}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None
