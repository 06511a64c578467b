"""A Hugging Face ViT's or DeiT's own attention, whose products have quantized operands.

Here without the dropout that attentions have in training.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from core.nn.attention.products import AttentionProducts
from core.nn.replacement import Replacement

NAME = "slimboard_quantized_products"
SUPPORTED = ("ViTAttention", "DeiTAttention")


class HuggingFaceQuantizedProducts(Replacement):
    """Runs the code of the attention whose place it takes, with another attention function.

    It takes over all attributes and submodules of that attention.
    """

    config: Any
    _attention: Any  # its class

    def __init__(self, operands: dict[str, Any], *, approximate_exp: bool = False):
        super().__init__()
        self.products = AttentionProducts(operands, approximate_exp=approximate_exp)

    def adopt(self, original: nn.Module) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        for name, child in original.named_children():
            self.add_module(name, child)
        for name, value in vars(original).items():
            self.__dict__.setdefault(name, value)
        self._attention = type(original)
        self.config = copy.copy(self.config)
        self.config._attn_implementation = NAME
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Mix tokens [B, T, dim], called as the original."""
        mixed: tuple[Tensor, None] = self._attention.forward(self, *args, **kwargs)
        return mixed

    def arguments(self) -> dict[str, Any]:
        return {"operands": self.products.operands(), "approximate_exp": self.products.approximate_exp}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> None:
        """None: the products are of dequantized operands."""


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """[B, T, heads, head_dim] from query, key and value [B, heads, T, head_dim], as transformers wants it."""
    mixed = module.products(query, key, value, scaling, mask)
    return mixed.transpose(1, 2).contiguous(), None
