"""Full attention of the reference Transformer whose products have quantized operands; no kernel here runs them.

Papers: https://arxiv.org/abs/2212.08254 (RepQ-ViT), https://arxiv.org/abs/2111.12293 (PTQ4ViT).
"""

from typing import Any

import torch
from torch import Tensor

from core.nn.attention.products import AttentionProducts
from core.nn.attention.swapped import SwappedAttention
from core.nn.cache import LayerCache


class QuantizedProductsAttention(SwappedAttention):
    """Bidirectional softmax attention; `operands` are the arguments of its quantizers, see `AttentionProducts`."""

    def __init__(self, dim: int, heads: int, *, operands: dict[str, Any], approximate_exp: bool = False, **shape: Any):
        super().__init__(dim, heads, **shape)
        self.products = AttentionProducts(operands, approximate_exp=approximate_exp)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        allowed = None if mask is None else mask[:, None, None].bool()
        mixed: Tensor = self.products(q, k, v, self.head_dim**-0.5, allowed)
        return mixed

    def arguments(self) -> dict[str, Any]:
        own = {"operands": self.products.operands(), "approximate_exp": self.products.approximate_exp}
        return {**self.shape(), **own}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> None:
        """None: the products are of dequantized operands."""
