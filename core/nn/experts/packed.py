"""Experts' linear layers in packed forms: integer codes, or pruned weights without their zeros."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.corrected_linear import CorrectedLinear
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.segments import Segments, segmented_linear
from core.nn.integer_linear import IntegerLinear
from core.nn.replacement import Replacement
from core.nn.sparse_weight import SparseWeight


class PackedExpertLinear(Replacement):
    """One packed linear layer an expert, each by the kernel of its own form: see `IntegerLinear`."""

    def __init__(self, experts: int, in_features: int, out_features: int):
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.layers = nn.ModuleList(nn.Module() for _ in range(experts))  # the manifest names what goes there

    @classmethod
    def of(cls, layers: Sequence[IntegerLinear | CorrectedLinear]) -> Self:
        """The experts with these layers, in their order."""
        made = cls(len(layers), layers[0].in_features, layers[0].out_features)
        made.layers = nn.ModuleList(layers)
        return made

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows [n, in] sorted by expert -> [n, out]."""
        parts = [self.layers[e](x[rows]) for e, rows in segments.slices]
        return torch.cat(parts) if parts else x.new_empty(0, self.out_features)

    def arguments(self) -> dict[str, Any]:
        return {"experts": self.experts, "in_features": self.in_features, "out_features": self.out_features}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Its layers tell for themselves."""
        return "dense"


class SparseExpertLinear(SparseWeight):
    """The experts' pruned weights [experts * out, in] without their zeros; unpacked when the model is prepared."""

    bias: nn.Parameter | None

    def __init__(
        self,
        experts: int,
        in_features: int,
        out_features: int,
        layout: str,
        *,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__((experts * out_features, in_features), layout, nnz=nnz, n=n, m=m, dtype=dtype)
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        empty = torch.zeros(experts * out_features, dtype=self.values.dtype)
        self.register_parameter("bias", nn.Parameter(empty) if bias else None)

    @classmethod
    @torch.no_grad()
    def pack(cls, layer: ExpertLinear, mask: Tensor) -> Self:
        """`layer` with only the weights kept that `mask` [experts * out, in] is True for, in the smallest layout."""
        packed = cls(
            layer.experts,
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            **cls.layout_arguments(layer.weight, mask),
        )
        packed.store(layer.weight, mask)
        if layer.bias is not None:
            packed.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
        return packed.train(layer.training)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows [n, in] sorted by expert -> [n, out]."""
        weight = self.weight() if self._laid_out is None else self._laid_out
        bias = None if self.bias is None else self.bias.view(self.experts, self.out_features)
        return segmented_linear(x, weight.view(self.experts, self.out_features, -1), bias, segments)

    def arguments(self) -> dict[str, Any]:
        return {
            "experts": self.experts,
            "in_features": self.in_features,
            "out_features": self.out_features,
            **self.stored_arguments(),
            "bias": self.bias is not None,
        }
