"""What transformers calls for a quantized cache: a layer of its cache, and an attention function.

Imported only where a transformers model is, since transformers is slow to import.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.nn.kv_cache import KvFormat, QuantizedCache, quantized_attention

NAME = "slimboard_quantized_kv"


class QuantizedKvLayer(DynamicLayer):
    """One layer of transformers' cache, with packed keys and values. It cannot be cropped: groups are packed whole."""

    is_croppable = False

    def __init__(self, form: KvFormat):
        super().__init__()
        self.cache = QuantizedCache(form)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.is_initialized = True
        return self.cache.append(key_states, value_states)

    def get_seq_length(self) -> int:
        return self.cache.length

    def reset(self) -> None:
        self.cache = QuantizedCache(self.cache.form)

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("a quantized cache cannot be cropped")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.cache.map_(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self.cache.map_(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))


class LayerOfCall:
    """Stands in for the cache during one call of an attention: rotates the keys, and keeps them if there is a cache."""

    def __init__(self, cache: Any, form: KvFormat, rotation: nn.Module | None):
        self.cache, self.form, self.rotation = cache, form, rotation

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The keys and values to attend to."""
        keys = keys if self.rotation is None else self.rotation(keys)
        if self.cache is None:
            return keys, values
        layers = self.cache.layers
        while len(layers) <= layer:
            layers.append(QuantizedKvLayer(self.form))
        if not isinstance(layers[layer], QuantizedKvLayer):
            layers[layer] = QuantizedKvLayer(self.form)
        found: tuple[Tensor, Tensor] = self.cache.update(keys, values, layer)
        return found


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """[B, T, heads, head_dim] from query [B, heads, T, head_dim], as transformers wants it; without dropout."""
    if module.key_rotation is not None:
        query = module.key_rotation(query)
    factor = 1.0 if scaling is None else scaling * query.shape[-1] ** 0.5  # beyond the product's own 1 / sqrt(head_dim)
    mixed = quantized_attention(query * factor, key, value, module.kv_format, allowed=attention_mask)
    return mixed.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
