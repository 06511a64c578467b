"""Who writes into a pre-norm Transformer's residual stream, and who reads from it, by full name."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from core.errors import SpecError
from core.models.anatomy import Anatomy, anatomy
from core.models.block_names import BlockNames

FEED_FORWARD: dict[str, list[str]] = {
    "TransformerBlock": ["ffn"],
    "LlamaDecoderLayer": ["mlp"],
    "MistralDecoderLayer": ["mlp"],
    "Qwen2DecoderLayer": ["mlp"],
    "Qwen3DecoderLayer": ["mlp"],
    "OPTDecoderLayer": ["fc1", "activation_fn", "fc2"],
    "GPT2Block": ["mlp"],
    "ViTLayer": ["mlp"],
    "DeiTLayer": ["mlp"],
}
"""Blocks that are x + attention(norm1(x)), x + ffn(norm2(x)) and nothing else, and what is called as their ffn."""
NORMS = ("LayerNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
REMEDY = "Choose builtin:vit, builtin:gpt or builtin:encoder, or a LLaMA-like, OPT, GPT-2 or ViT model."


@dataclass(frozen=True)
class Residual:
    """The stream of one model."""

    width: int
    embeddings: dict[str, int]  # parameters that are added up to its beginning, and the axis of each that is its width
    blocks: list[BlockNames]
    norm: str  # before the heads
    heads: list[str]  # linear layers
    centred: bool  # its norms take off the mean: they are LayerNorms


def residual(model: nn.Module) -> Residual:
    """The stream of `model`; raises SpecError with the reason where it is not known, or not made of dense linears."""
    known = anatomy(model)
    known.require("blocks' parts")
    for block in known.blocks:
        kind = type(model.get_submodule(block.name)).__name__
        if kind not in FEED_FORWARD or not block.pre_norm:
            raise _refused(known, f"has blocks that are not plain pre-norm blocks: {kind}")
    known.require("norm")
    known.require("head")
    assert known.norm is not None
    norms = [known.norm, *(name for block in known.blocks for name in (block.norm1, block.norm2))]
    linears = [*known.outputs, *(name for block in known.blocks for name in block.linears)]
    _check_kinds(model, known, norms, linears)
    width = model.get_submodule(known.blocks[0].groups[0][0]).in_features
    assert isinstance(width, int)
    layer_norms = [isinstance(model.get_submodule(name), nn.LayerNorm) for name in norms]
    return Residual(
        width=width,
        embeddings=_embeddings(model, known, width),
        blocks=known.blocks,
        norm=known.norm,
        heads=known.outputs,
        centred=all(layer_norms),
    )


def dropout_of(block: nn.Module) -> float:
    """Share of what a block adds to the stream that it drops in training, itself and not within its parts."""
    dropout: Any = getattr(block, "dropout", 0.0)
    return float(dropout.p if isinstance(dropout, nn.Dropout) else dropout)


def _check_kinds(model: nn.Module, known: Anatomy, norms: list[str], linears: list[str]) -> None:
    for name in norms:
        kind = type(model.get_submodule(name)).__name__
        if kind not in NORMS:
            raise _refused(known, f"has a norm that cannot be folded into the layers after it: {name}, a {kind}")
    for name in linears:
        if type(model.get_submodule(name)) is not nn.Linear:
            raise _refused(known, f"has a layer that cannot be rotated: {name}")


def _embeddings(model: nn.Module, known: Anatomy, width: int) -> dict[str, int]:
    """Every parameter outside of blocks, last norm and heads, and which of its axes is the stream's."""
    others = (f"{known.blocks_list}.", f"{known.norm}.", *(f"{name}." for name in known.outputs))
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name.startswith(others):
            continue
        owner = model.get_submodule(name.rpartition(".")[0])
        plain = name.rpartition(".")[2] not in ("weight", "bias")  # class token, positions
        axis = 0 if isinstance(owner, nn.Conv2d) else -1 if isinstance(owner, nn.Embedding) or plain else None
        if axis is None or parameter.shape[axis] != width:
            raise _refused(known, f"has other layers than embeddings before its blocks: {name}")
        found[name] = axis
    return found


def _refused(known: Anatomy, reason: str) -> SpecError:
    return SpecError.of("model.source", known.architecture, reason, REMEDY)
