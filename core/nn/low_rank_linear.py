"""Linear layer as the product of two thin ones.

Paper: https://doi.org/10.1007/BF02288367 (Eckart and Young, 1936: the nearest matrix of a rank).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.replacement import Replacement


def nearest_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """[out, rank] and [rank, in] whose product is nearest to weight [out, in] in Frobenius norm.

    Computed in float32, or float64 where the weight is; the first has the singular values.
    """
    U, S, Vh = torch.linalg.svd(weight if weight.dtype == torch.float64 else weight.float(), full_matrices=False)
    return U[:, :rank] * S[:rank], Vh[:rank]


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
        """The nearest rank-`rank` layer: see `nearest_factors`."""
        layer = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None).to(linear.weight)
        up, down = nearest_factors(linear.weight, rank)
        layer.up.weight.copy_(up)
        layer.down.weight.copy_(down)
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
