"""Linear layer as the product of two thin ones."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.replacement import Replacement


class LowRankLinear(Replacement):
    """Linear layer factored into two thin ones: rank * (in + out) weights."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.rank = rank
        self.has_bias = bias
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, rank: int) -> Self:
        """Nearest rank-`rank` layer in Frobenius norm (Eckart-Young); computed in float32, or float64 if it has it."""
        weight = linear.weight if linear.weight.dtype == torch.float64 else linear.weight.float()
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)  # [out, k], [k], [k, in]
        layer = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None).to(linear.weight)
        layer.up.weight.copy_(U[:, :rank] * S[:rank])  # [out, rank]
        layer.down.weight.copy_(Vh[:rank])  # [rank, in]
        layer.up.bias = linear.bias
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., rank] -> [..., out]."""
        return self.up(self.down(x))

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "rank": self.rank,
            "bias": self.has_bias,
        }

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
