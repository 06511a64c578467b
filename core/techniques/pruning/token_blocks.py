"""Which blocks of a Vision Transformer can reduce their tokens, and where their parts are."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from core.errors import SpecError
from core.models.anatomy import anatomy
from core.models.block_names import BlockNames
from core.nn.replacement import Replacement
from core.nn.sliced import SlicedBlock
from core.nn.tokens.block import ReducingBlock
from core.subject import Subject
from core.tasks.base import Kind

SUPPORTED = ("builtin", "builtin gated", "vit")  # layouts of blocks x + attention(norm1(x)), x + ffn(norm2(x))
_PARTS = ("norm1", "q", "k", "v", "o", "norm2")


@dataclass(frozen=True)
class Tokens:
    """The tokens of a Vision Transformer, and its blocks by name with the parts that a `ReducingBlock` asks for."""

    dim: int
    head_dim: int
    protected: int  # class and distillation tokens in front
    patches: int
    parts: dict[str, dict[str, str]]


def tokens_of(subject: Subject) -> Tokens:
    """The properties of the main model for token reduction; raises SpecError if it is not a supported ViT."""
    model = subject.model
    known = anatomy(model)
    if subject.task.kind is not Kind.IMAGE_CLASSIFICATION or known.layout not in SUPPORTED or known.causal:
        message = "is not a Vision Transformer that Slimboard knows"
        raise SpecError.of("model.source", known.architecture, message, "Choose builtin:vit or a ViT or DeiT model.")
    if any(isinstance(model.get_submodule(block.name), SlicedBlock) for block in known.blocks):
        message = "was sliced: its blocks rotate their tokens, which token-reducing blocks do not support"
        raise SpecError.of("model.source", known.architecture, message, "Remove one of the two steps.")
    if any(isinstance(model.get_submodule(block.name), ReducingBlock) for block in known.blocks):
        message = "already has blocks that reduce tokens"
        raise SpecError.of("model.source", known.architecture, message, "Remove one of the two steps.")
    if any(isinstance(model.get_submodule(block.attention), Replacement) for block in known.blocks):
        message = "has replaced attention, and token-reducing blocks compute full attention"
        raise SpecError.of("model.source", known.architecture, message, "Remove one of the two steps.")
    idle = next((block.attention for block in known.blocks if not _out_features(model, block.k)), None)
    if idle is not None:
        remedy = "Put the step that reduces tokens before the one that pruned all heads."
        raise SpecError.of("model.source", idle, "has no heads left, whose keys are needed to compare tokens", remedy)
    _refuse_dropout(model)
    assert known.head_dim is not None
    protected, total = _positions(model)
    parts = {block.name: _relative(block) for block in known.blocks}
    dim = _out_features(model, known.blocks[0].o)
    return Tokens(dim, known.head_dim, protected, total - protected, parts)


def _out_features(model: nn.Module, name: str) -> int:
    layer: Any = model.get_submodule(name)
    return int(layer.out_features)


def _relative(block: BlockNames) -> dict[str, str]:
    names = {part: getattr(block, part) for part in _PARTS} | {"ffn": block.up.rpartition(".")[0]}
    return {part: name.removeprefix(f"{block.name}.") for part, name in names.items()}


def _positions(model: nn.Module) -> tuple[int, int]:
    """Special tokens in front, and all tokens."""
    for owner in model.modules():
        embedding: Any = getattr(owner, "position_embedding", getattr(owner, "position_embeddings", None))
        if isinstance(embedding, nn.Parameter):
            names = ("cls", "cls_token", "distillation_token")
            return sum(isinstance(getattr(owner, name, None), nn.Parameter) for name in names), embedding.shape[1]
    raise SpecError.of("model.source", type(model).__name__, "has no learned positions", "Choose builtin:vit or a ViT.")


def _refuse_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        share: Any = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if share and ".layer" in name:
            remedy = "Set hidden_dropout_prob and attention_probs_dropout_prob to 0 in its config."
            raise SpecError.of("model.source", name, f"drops {share:g} of its inputs in training", remedy)
