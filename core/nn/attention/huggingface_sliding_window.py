"""Sliding-window attention in the place of a Hugging Face decoder's own: LLaMA-like, OPT and GPT-2.

Paper: https://arxiv.org/abs/2004.05150; as Mistral uses it, https://arxiv.org/abs/2310.06825. The projections keep
their names, so that whatever knows the architecture still finds them. Here without the dropout that GPT-2 and
OPT have in training.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.attention.sliding_window import windowed_attention
from core.nn.replacement import Replacement
from core.nn.rotary import rotate

PROJECTIONS = {  # of q, k, v (one linear in GPT-2) and the output
    "LlamaAttention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MistralAttention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Qwen2Attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "OPTAttention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "GPT2Attention": ("c_attn", "c_proj"),
}


class HuggingFaceSlidingWindow(Replacement):
    """Causal softmax attention over the `window` last tokens, called as transformers calls its attention.

    Of transformers' cache it uses the sliding layer, which keeps window - 1 keys and values.
    """

    causal = True

    def __init__(
        self,
        projections: list[str],
        *,
        dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        window: int,
        layer: int,
        qkv_bias: bool,
        bias: bool,
    ):
        super().__init__()
        self.projections = list(projections)
        self.head_dim = head_dim
        self.window, self.layer = window, layer
        self.qkv_bias, self.has_bias = qkv_bias, bias
        widths = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
        *inputs, output = projections
        for name, width in zip(inputs, widths if len(inputs) == 3 else [sum(widths)], strict=True):
            setattr(self, name, nn.Linear(dim, width, bias=qkv_bias))
        setattr(self, output, nn.Linear(heads * head_dim, dim, bias=bias))

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return int(getattr(self, self.projections[0]).in_features)

    @property
    def heads(self) -> int:
        """Query heads, as many as the projection has: pruning leaves fewer."""
        return _heads(self, self.projections)[0]

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return _heads(self, self.projections)[1]

    @classmethod
    def from_attention(cls, attention: nn.Module, window: int) -> Self:
        """The same projections (not copies), seeing only `window` tokens, or the fewer that the attention sees already.

        ValueError where the attention does more.
        """
        reason = unsupported(attention)
        if reason is not None:
            raise ValueError(reason)
        known: Any = attention
        projections = PROJECTIONS[type(attention).__name__]
        first, last = getattr(known, projections[0]), getattr(known, projections[-1])
        heads, kv_heads = _heads(known, projections)
        with torch.device("meta"):
            made = cls(
                list(projections),
                dim=first.in_features,
                heads=max(1, heads),
                kv_heads=max(1, kv_heads),
                head_dim=known.head_dim,
                window=min(window, own_window(known) or window),
                layer=known.layer_idx,
                qkv_bias=first.bias is not None,
                bias=last.bias is not None,
            )
        for name in projections:
            setattr(made, name, getattr(attention, name))
        return made.train(attention.training)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Mix tokens [B, T, dim]; of the mask [B, 1, T, S] only what is padding counts: what no query sees."""
        q, k, v = (x.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for x in self._project(hidden_states))
        if position_embeddings is not None:
            cos, sin = (x[:, None] for x in position_embeddings)  # [B, 1, T, head_dim]
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past_key_values is not None:
            k, v = self._remember(past_key_values, k, v)  # [B, kv_heads, past + T, head_dim]
        mixed = windowed_attention(q, k, v, self.window, causal=True, mask=_padding(attention_mask, k.shape[2]))
        output = getattr(self, self.projections[-1])
        return output(mixed.transpose(1, 2).flatten(2)), None

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        inputs = self.projections[:-1]
        if len(inputs) == 3:
            return tuple(getattr(self, name)(x) for name in inputs)
        return getattr(self, inputs[0])(x).chunk(3, dim=-1)

    def _remember(self, cache: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        from transformers.cache_utils import DynamicSlidingWindowLayer

        while len(cache.layers) <= self.layer:
            cache.layers.append(DynamicSlidingWindowLayer(sliding_window=self.window))
        if not isinstance(cache.layers[self.layer], DynamicSlidingWindowLayer):
            cache.layers[self.layer] = DynamicSlidingWindowLayer(sliding_window=self.window)
        return cache.update(k, v, self.layer)

    def arguments(self) -> dict[str, Any]:
        names = ("projections", "dim", "head_dim", "window", "layer")
        heads = {"heads": max(1, self.heads), "kv_heads": max(1, self.kv_heads)}  # 0: an artifact tells the shapes
        plain = {name: getattr(self, name) for name in names}
        return {**plain, **heads, "qkv_bias": self.qkv_bias, "bias": self.has_bias}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


def _heads(attention: Any, projections: Sequence[str]) -> tuple[int, int]:
    """Query heads and key-value heads that the projections have: pruning leaves fewer than the config says."""
    widths = [getattr(attention, name).out_features for name in projections[:-1]]
    if len(widths) == 1:
        return widths[0] // (3 * attention.head_dim), widths[0] // (3 * attention.head_dim)
    return widths[0] // attention.head_dim, widths[1] // attention.head_dim


def own_window(attention: Any) -> int | None:
    """The window that a model's config gives the attention (Mistral, some layers of Qwen2)."""
    own: int | None = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return own


def unsupported(attention: nn.Module) -> str | None:
    """Why this attention cannot be swapped; None where it can."""
    name = type(attention).__name__
    if name not in PROJECTIONS:
        return f"{name} is not among {', '.join(PROJECTIONS)}"
    known: Any = attention
    if (
        getattr(known, "scale_attn_by_inverse_layer_idx", False)
        or getattr(known, "scaling", None) != known.head_dim**-0.5
    ):
        return f"{name} does not scale its scores by 1 / sqrt(head_dim)"
    return None


def _padding(mask: Tensor | None, n_keys: int) -> Tensor | None:
    """Which keys [B, n_keys] are tokens, from transformers' 4-D mask (True or 0 = seen)."""
    if mask is None:
        return None
    visible = mask[:, 0, :, -n_keys:]
    return (visible if visible.dtype == torch.bool else visible >= 0).any(dim=1)
