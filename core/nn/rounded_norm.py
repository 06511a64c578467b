"""A norm whose inputs are rounded to steps of powers of two; no kernel here computes it in integers.

Paper: https://arxiv.org/abs/2111.13824 (FQ-ViT, section 3.2).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.replacement import Replacement
from core.nn.uneven_quantizers import PowerOfTwoQuantizer


class RoundedNorm(Replacement):
    """norm(activation(x)); `activation` is given as the quantizer's arguments, and the norm is taken over."""

    norm: Any

    def __init__(self, activation: dict[str, Any]):
        super().__init__()
        arguments = {key: value for key, value in activation.items() if key != "kind"}
        self.activation = PowerOfTwoQuantizer(**arguments)
        self.norm = None

    @classmethod
    def around(cls, norm: nn.Module, activation: PowerOfTwoQuantizer) -> Self:
        """The norm with its inputs rounded."""
        made = cls(activation.arguments())
        made.activation = activation
        made.adopt(norm)
        return made.train(norm.training)

    def adopt(self, original: nn.Module) -> None:
        self.norm = original

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        output: Tensor = self.norm(self.activation(x))
        return output

    def arguments(self) -> dict[str, Any]:
        return {"activation": self.activation.arguments()}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None
