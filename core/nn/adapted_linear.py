"""A frozen layer of integer weights with a low-rank term beside it: LoRA on quantized weights.

Papers: https://arxiv.org/abs/2106.09685 (LoRA), https://arxiv.org/abs/2305.14314 (QLoRA: on quantized weights).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.integer_linear import IntegerLinear
from core.nn.replacement import Replacement


class AdaptedLinear(Replacement):
    """`base`, with its bias, plus scaling * up(down(x)); the scaling is 1 once `fold_scaling_` was called."""

    def __init__(self, in_features: int, out_features: int, rank: int):
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.base: nn.Module = nn.Module()  # the manifest names what goes there
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=False)
        self.scaling = 1.0

    @classmethod
    @torch.no_grad()
    def around(cls, base: IntegerLinear, rank: int, scaling: float, generator: torch.Generator) -> Self:
        """The same function at first: `up` is zero, `down` uniform as a fresh linear layer's weight, in float32."""
        made = cls(base.in_features, base.out_features, rank)
        bound = base.in_features**-0.5
        made.down.weight.uniform_(-bound, bound, generator=generator)
        made.up.weight.zero_()
        made.scaling = scaling
        made.to(base.codes.device).base = base
        return made.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        adapted: Tensor = self.base(x) + self.scaling * self.up(self.down(x))
        return adapted

    @torch.no_grad()
    def product(self) -> Tensor:
        """The low-rank term as a weight, float32 [out, in]."""
        return self.scaling * (self.up.weight.float() @ self.down.weight.float())

    @torch.no_grad()
    def fold_scaling_(self) -> None:
        """Multiply the scaling into `up`."""
        self.up.weight.mul_(self.scaling)
        self.scaling = 1.0

    def weight(self) -> Tensor:
        """The weights of both terms together, float32 [out, in]."""
        assert isinstance(self.base, IntegerLinear)
        return self.base.weight() + self.product()

    def arguments(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "rank": self.rank}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Its base tells for itself."""
        return "dense"
