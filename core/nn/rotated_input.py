"""A linear layer whose input is multiplied by a Hadamard matrix at every call, the inverse being in its weight.

Paper: https://arxiv.org/abs/2404.00456 (QuaRot, section 4, stage 1c).
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.hadamard import Hadamard
from core.nn.replacement import Replacement


class RotatedInput(Replacement):
    """linear(x H): outliers of a channel of x are spread over all of them. Later steps find the layer as `linear`."""

    linear: nn.Module

    def __init__(self, features: int):
        super().__init__()
        self.rotation = Hadamard(features)

    def adopt(self, original: nn.Module) -> None:
        self.linear = original

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        output: Tensor = self.linear(self.rotation(x))
        return output

    def arguments(self) -> dict[str, Any]:
        return {"features": self.rotation.size}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
