"""A layer's weights with the grid that each group of a row is rounded to, and the codes that are nearest."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.algorithms.packed_layers import linears_of
from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.nn.quant_linear import QuantLinear


class RowGrid:
    """Weights [rows, in] of a linear layer, or of all experts under one another, and the grids of their groups.

    All tensors are float32. `scale` and `zero_point` are [rows, n_groups]; `dtype` is what scales are stored in.
    """

    def __init__(self, layer: nn.Module, scheme: QuantizationScheme, mask: Tensor | None = None):
        self.linears = linears_of(layer)
        self.weight = layer.get_parameter("weight").detach().float()
        nearest = scheme.pack(_tall(self.linears, layer), lambda fit, size: quantize_groups(self.weight, fit, size))
        codes, scale, zero_point = nearest.unpacked()
        self.codes, self.scale = codes.float(), scale.float()
        self.zero_point = zero_point.float().expand_as(self.scale)
        self.bits, self.symmetric, self.group_size = nearest.bits, nearest.symmetric, nearest.group_size
        self.dtype = scale.dtype
        self.mask = mask  # bool [rows, in], True = kept; what is not stays at its zero point

    @property
    def highest(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def spread(self, x: Tensor) -> Tensor:
        """One value for each group [rows, n_groups] as one for each weight: [rows, in], or [rows, 1] of one group."""
        if x.shape[1] == 1 or self.group_size is None:
            return x
        return x.repeat_interleave(self.group_size, dim=1)[:, : self.weight.shape[1]]

    def values(self, codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """What codes [rows, in] stand for on a grid [rows, n_groups]."""
        return self.spread(scale) * (codes - self.spread(zero_point))

    def nearest(self) -> Tensor:
        """The weights rounded to nearest [rows, in]."""
        return self.values(self.codes, self.scale, self.zero_point)

    def keep_zeros(self, codes: Tensor, zero_point: Tensor) -> Tensor:
        """The codes, but those of pruned weights their zero points."""
        return codes if self.mask is None else torch.where(self.mask, codes, self.spread(zero_point))

    def pack(self, codes: Tensor, scale: Tensor, zero_point: Tensor) -> list[QuantLinear]:
        """The packed layers, one for each matrix, of codes [rows, in] on a grid [rows, n_groups]."""
        parts = [x.chunk(len(self.linears)) for x in (codes, scale.to(self.dtype), zero_point)]
        return [
            QuantLinear.of(
                linear,
                own_codes,
                own_scale,
                None if self.symmetric else own_zero_point,
                bits=self.bits,
                group_size=self.group_size,
            )
            for linear, own_codes, own_scale, own_zero_point in zip(self.linears, *parts, strict=True)
        ]


def _tall(linears: Sequence[nn.Linear], layer: nn.Module) -> nn.Linear:
    """All matrices of a layer as one, of the same memory."""
    weight = layer.get_parameter("weight").detach()
    tall = nn.Linear(linears[0].in_features, len(weight), bias=False, device="meta")
    tall.weight = nn.Parameter(weight, requires_grad=False)
    return tall
