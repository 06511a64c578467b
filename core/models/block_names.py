"""Names of the parts of a block in known architectures: the reference Transformer and Hugging Face's families."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BlockNames:
    """Names of a block's parts: relative in `LAYOUTS`, full in an `Anatomy`."""

    attention: str
    q: str
    k: str
    v: str
    o: str
    up: str
    down: str
    norm1: str  # on the way into attention; after it where `pre_norm` is False
    norm2: str  # on the way into the feed-forward network; after it where `pre_norm` is False
    gate: str | None = None
    pre_norm: bool = True
    name: str = ""

    @property
    def fused(self) -> bool:
        """q, k and v are the rows of one linear, a third each (GPT-2)."""
        return self.q == self.k == self.v

    @property
    def groups(self) -> list[list[str]]:
        """The block's linears in the order of execution; those of a group share their input."""
        qkv = [self.q] if self.fused else [self.q, self.k, self.v]
        return [qkv, [self.o], [self.up] if self.gate is None else [self.gate, self.up], [self.down]]

    @property
    def linears(self) -> list[str]:
        """All linears of the block in the order of execution."""
        return [name for group in self.groups for name in group]

    @property
    def attention_parts(self) -> list[str]:
        """What the half of a block that mixes tokens consists of."""
        return [*self.groups[0], self.o, self.norm1]

    @property
    def feed_parts(self) -> list[str]:
        """What the other half consists of."""
        return [*self.groups[2], self.down, self.norm2]

    def within(self, block: str, pre_norm: bool) -> "BlockNames":
        """The same with full names."""
        full = {
            key: f"{block}.{value}" for key, value in vars(self).items() if isinstance(value, str) and key != "name"
        }
        return BlockNames(**full, pre_norm=self.pre_norm and pre_norm, name=block)


def _layout(attention: str, projections: str, ffn: str, norms: str, **more: Any) -> BlockNames:
    q, k, v, o = projections.split()
    *gate, up, down = ffn.split()
    norm1, norm2 = norms.split()
    return BlockNames(attention, q, k, v, o, up, down, norm1, norm2, gate[0] if gate else None, **more)


_SELF = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn."
_OUTER = "attention.q_proj attention.k_proj attention.v_proj attention.o_proj"
_VIT_NORMS = "layernorm_before layernorm_after"
_BERT = "attention.self.query attention.self.key attention.self.value attention.output.dense"
_OLD_VIT = "attention.attention.query attention.attention.key attention.attention.value attention.output.dense"
_DENSE = "intermediate.dense output.dense"

_LLAMA_FFN = "mlp.gate_proj mlp.up_proj mlp.down_proj"
_BUILTIN = "attention.q attention.k attention.v attention.o"

LAYOUTS: dict[str, BlockNames] = {
    "builtin gated": _layout("attention", _BUILTIN, "ffn.gate ffn.up ffn.down", "norm1 norm2"),
    "builtin": _layout("attention", _BUILTIN, "ffn.up ffn.down", "norm1 norm2"),
    "gemma 2": _layout("self_attn", _SELF + "o_proj", _LLAMA_FFN, "input_layernorm pre_feedforward_layernorm"),
    "llama": _layout("self_attn", _SELF + "o_proj", _LLAMA_FFN, "input_layernorm post_attention_layernorm"),
    "opt": _layout("self_attn", _SELF + "out_proj", "fc1 fc2", "self_attn_layer_norm final_layer_norm"),
    "gpt2": _layout("attn", "attn.c_attn attn.c_attn attn.c_attn attn.c_proj", "mlp.c_fc mlp.c_proj", "ln_1 ln_2"),
    "bert": _layout("attention", _BERT, _DENSE, "attention.output.LayerNorm output.LayerNorm", pre_norm=False),
    "vit": _layout("attention", _OUTER, "mlp.fc1 mlp.fc2", _VIT_NORMS),
    "vit (transformers 4)": _layout("attention", _OLD_VIT, _DENSE, _VIT_NORMS),
}
