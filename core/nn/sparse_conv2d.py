"""Convolution of a pruned weight, packed; unpacked to execute, since no library here multiplies it sparse."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.sparse_weight import SparseWeight


class SparseConv2d(SparseWeight):
    """Two-dimensional convolution, padded with zeros, whose pruned weights take no room."""

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        layout: str,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] | str = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        bias: bool = True,
        dtype: str = "float32",
    ):
        shape = (out_channels, in_channels // groups, *kernel_size)
        super().__init__(shape, layout, nnz=nnz, n=n, m=m, dtype=dtype)
        self.in_channels = in_channels
        self.stride, self.dilation, self.groups = tuple(stride), tuple(dilation), groups
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        empty = torch.zeros(out_channels, dtype=self.values.dtype)
        self.register_parameter("bias", nn.Parameter(empty) if bias else None)

    @classmethod
    @torch.no_grad()
    def pack(cls, conv: nn.Conv2d, mask: Tensor) -> Self:
        """`conv` with only the weights kept that `mask` [out, in / groups, R, S] is True for."""
        if conv.padding_mode != "zeros":
            raise ValueError(f"convolutions padded with {conv.padding_mode} cannot be packed")
        packed = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            **cls.layout_arguments(conv.weight, mask),
        )
        packed.store(conv.weight, mask)
        if conv.bias is not None:
            packed.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=conv.bias.requires_grad)
        return packed.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        weight = self.weight() if self._laid_out is None else self._laid_out
        return F.conv2d(x, weight, self.bias, **self._geometry())

    def macs(self, shape: torch.Size) -> int:
        image = torch.empty(shape, device="meta")
        weight = torch.empty(self.shape, device="meta")
        return F.conv2d(image, weight, None, **self._geometry()).numel() * self.shape[1:].numel()

    @torch.no_grad()
    def dense(self) -> nn.Conv2d:
        """An ordinary convolution with exactly the same weights."""
        out_channels, _, height, width = self.shape
        has_bias = self.bias is not None
        conv = nn.Conv2d(
            self.in_channels, out_channels, (height, width), bias=has_bias, device="meta", **self._geometry()
        )
        conv.weight = nn.Parameter(self.weight())
        if self.bias is not None:
            conv.bias = nn.Parameter(self.bias.detach().clone())
        return conv

    def arguments(self) -> dict[str, Any]:
        out_channels, _, *kernel_size = self.shape
        geometry = {key: list(value) if isinstance(value, tuple) else value for key, value in self._geometry().items()}
        return {
            "in_channels": self.in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            **self.stored_arguments(),
            **geometry,
            "bias": self.bias is not None,
        }

    def _geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
