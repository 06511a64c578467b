"""A packed linear layer with a low-rank term beside it that takes back most of its error.

Papers: https://arxiv.org/abs/2410.21271 (EoRA), https://arxiv.org/abs/2402.02446 (LQER).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.integer_linear import DTYPES, IntegerLinear, dtype_name
from core.nn.replacement import Replacement


class CorrectedLinear(Replacement):
    """base(x) + up down x: `base` is the packed layer, its bias included; the factors are in 16 bits."""

    base: nn.Module

    def __init__(self, in_features: int, out_features: int, rank: int, *, factor_dtype: str):
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        dtype = DTYPES[factor_dtype]
        self.base = nn.Module()  # the manifest names what goes there
        self.down = nn.Parameter(torch.zeros(rank, in_features, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(out_features, rank, dtype=dtype))

    @classmethod
    @torch.no_grad()
    def of(cls, base: IntegerLinear, up: Tensor, down: Tensor, dtype: torch.dtype) -> Self:
        """`base` with factors [out, rank] and [rank, in], which are kept in `dtype`."""
        made = cls(base.in_features, base.out_features, len(down), factor_dtype=dtype_name(dtype))
        made.base = base
        made.up, made.down = nn.Parameter(up.to(dtype)), nn.Parameter(down.to(dtype).contiguous())
        return made.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        corrected: Tensor = self.base(x)
        return corrected + F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def weight(self) -> Tensor:
        """The weights that it stands for, float32 [out, in]."""
        assert isinstance(self.base, IntegerLinear)
        return self.base.weight() + self.up.float() @ self.down.float()

    def arguments(self) -> dict[str, Any]:
        sizes = {"in_features": self.in_features, "out_features": self.out_features, "rank": self.rank}
        return {**sizes, "factor_dtype": dtype_name(self.up.dtype)}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        """That of the factors; the packed layer tells for itself."""
        return "dense"
