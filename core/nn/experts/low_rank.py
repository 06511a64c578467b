"""Experts' linear layers as products of two thin ones, each expert's factors its own."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.experts.linear import ExpertLinear
from core.nn.experts.segments import Segments
from core.nn.low_rank_linear import nearest_factors
from core.nn.replacement import Replacement


def saved_by_factoring(experts: nn.Module) -> int:
    """Weights that each of these experts has less since its layers were factored."""
    return sum(layer.saved() for layer in experts.modules() if isinstance(layer, LowRankExpertLinear))


class LowRankExpertLinear(Replacement):
    """An `ExpertLinear` factored into two: rank * (in + out) weights an expert."""

    def __init__(self, experts: int, in_features: int, out_features: int, rank: int, *, bias: bool = True):
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.rank, self.has_bias = rank, bias
        self.down: nn.Module = ExpertLinear(experts, in_features, rank, bias=False)
        self.up: nn.Module = ExpertLinear(experts, rank, out_features, bias=bias)

    @classmethod
    @torch.no_grad()
    def of(cls, layer: ExpertLinear, rank: int) -> Self:
        """The nearest rank-`rank` layer of every expert: see `nearest_factors`."""
        made = cls(layer.experts, layer.in_features, layer.out_features, rank, bias=layer.bias is not None)
        made.to(layer.weight)
        factors = [nearest_factors(matrix, rank) for matrix in layer.matrices()]
        made.get_parameter("up.weight").copy_(torch.cat([up for up, _ in factors]))
        made.get_parameter("down.weight").copy_(torch.cat([down for _, down in factors]))
        made.up.register_parameter("bias", layer.bias)
        return made.train(layer.training)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows sorted by expert: [n, in] -> [n, rank] -> [n, out]."""
        return self.up(self.down(x, segments), segments)

    def saved(self) -> int:
        """Weights that one expert has less than before."""
        return self.in_features * self.out_features - self.rank * (self.in_features + self.out_features)

    def arguments(self) -> dict[str, Any]:
        return {
            "experts": self.experts,
            "in_features": self.in_features,
            "out_features": self.out_features,
            "rank": self.rank,
            "bias": self.has_bias,
        }

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
