"""A Hugging Face decoder's own attention, over keys and values in a few bits.

Paper: https://arxiv.org/abs/2402.02750 (KIVI). Here without the dropout that attentions have in training.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from core.nn.attention.huggingface_sliding_window import own_window
from core.nn.attention.quantized_kv import NO_ONNX
from core.nn.hadamard import Hadamard
from core.nn.kv_cache import KvFormat
from core.nn.replacement import Replacement


class HuggingFaceQuantizedKv(Replacement):
    """Runs the code of the attention whose place it takes, with another cache and attention function.

    It takes over all attributes and submodules of that attention, so that whatever knows the architecture still finds
    them. `rotate` multiplies queries and keys by a Hadamard matrix.
    """

    no_onnx = NO_ONNX

    config: Any
    _attention: Any  # its class

    def __init__(self, bits: int, group_size: int, window: int, head_dim: int, *, rotate: bool = False):
        super().__init__()
        self.kv_format = KvFormat(bits, group_size, window)
        self.head_dim = head_dim
        self.key_rotation = Hadamard(head_dim) if rotate else None

    def adopt(self, original: nn.Module) -> None:
        from core.nn.attention.huggingface_kv_layer import NAME

        for name, child in original.named_children():
            self.add_module(name, child)
        for name, value in vars(original).items():
            self.__dict__.setdefault(name, value)
        self._attention = type(original)
        self.config = copy.copy(self.config)
        self.config._attn_implementation = NAME

    def forward(self, *args: Any, past_key_values: Any = None, **kwargs: Any) -> tuple[Tensor, None]:
        """Mix tokens [B, T, dim], called as the original."""
        from core.nn.attention.huggingface_kv_layer import LayerOfCall

        layer = LayerOfCall(past_key_values, self.kv_format, self.key_rotation)
        mixed: tuple[Tensor, None] = self._attention.forward(self, *args, past_key_values=layer, **kwargs)
        return mixed

    def arguments(self) -> dict[str, Any]:
        return {
            **vars(self.kv_format),
            "head_dim": self.head_dim,
            "rotate": self.key_rotation is not None,
        }

    def kernel(self, device: torch.device, dtype: torch.dtype) -> None:
        """None: the cache is unpacked at every token."""


def unsupported(attention: nn.Module) -> str | None:
    """Why the keys and values of this transformers attention cannot be quantized here; None if they can."""
    known: Any = attention
    name = type(attention).__name__
    config: Any = getattr(known, "config", None)
    if isinstance(attention, Replacement):
        return f"{name} was put there by an earlier step"
    if config is None or not getattr(known, "is_causal", False) or not hasattr(known, "layer_idx"):
        return f"{name} is not a decoder's attention"
    if getattr(config, "is_encoder_decoder", False):
        return f"{name} belongs to an encoder and decoder"
    window = own_window(known)
    if window is not None:
        return f"{name} sees a window of {window} tokens only"
    softcap = getattr(known, "attn_logit_softcapping", getattr(config, "attn_logit_softcapping", None))
    if softcap is not None or getattr(known, "sinks", None) is not None:
        return f"{name} changes its scores before the softmax"
    return None
