"""Which parts of a built-in Transformer an architecture step puts others in the place of."""

from torch import nn

from core.context import Context
from core.errors import SpecError
from core.models.gpt import Gpt
from core.nn.attention.full import FullAttention
from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.mlp import Mlp
from core.nn.rotated_input import RotatedInput
from core.nn.tokens.block import ReducingBlock
from core.nn.transformer import Transformer, TransformerBlock
from core.subject import Subject

REMEDY = "Choose builtin:vit, builtin:gpt or builtin:encoder, and put this step before steps that replace its parts."


def transformer(subject: Subject) -> Transformer:
    """The main model, where it is a built-in Transformer; raises SpecError if it is not."""
    if not isinstance(subject.model, Transformer):
        message = "is not a built-in Transformer, so its parts cannot be swapped"
        raise SpecError.of("model", type(subject.model).__name__, message, REMEDY)
    return subject.model


def full_attentions(subject: Subject) -> dict[str, FullAttention]:
    """The model's full attentions by name; raises SpecError if it has none."""
    modules = dict(transformer(subject).named_modules())
    for name, module in modules.items():
        if isinstance(module, ReducingBlock):
            remedy = "These blocks compute attention themselves: remove one of the two steps."
            raise SpecError.of("model.source", name, "reduces tokens", remedy)
    found = {name: module for name, module in modules.items() if type(module) is FullAttention}
    _require(subject, dict(found), "full attention")
    return found


def dense_ffns(subject: Subject) -> dict[str, Mlp | GatedFfn]:
    """The model's feed-forward networks by name; raises SpecError if it has none."""
    found = {n: m for n, m in transformer(subject).named_modules() if _is_dense(m)}
    _require(subject, dict(found), "dense feed-forward network")
    return found


def whole_blocks(subject: Subject) -> dict[str, TransformerBlock]:
    """The model's blocks by name, each of full attention and a dense network; raises SpecError if one is not."""
    found = {}
    for index, block in enumerate(transformer(subject).blocks):
        name = f"blocks.{index}"
        if type(block) is not TransformerBlock or not _is_plain(block):
            message = "is not (or no longer) a block with full attention and a dense feed-forward network"
            raise SpecError.of("model", name, message, REMEDY)
        found[name] = block
    return found


def _is_plain(block: TransformerBlock) -> bool:
    norms = isinstance(block.norm1, nn.LayerNorm) and isinstance(block.norm2, nn.LayerNorm)
    return norms and type(block.attention) is FullAttention and _is_dense(block.ffn)


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, (Mlp, GatedFfn)) and not isinstance(module.down, RotatedInput)


def forget_training(subject: Subject, context: Context, part: str) -> None:
    """Count the model as untrained, whose weights of `part` are drawn anew, and say in the log what is lost."""
    if subject.trained:
        message = f"the trained weights of the {part} cannot be carried over: the new ones are random and need training"
        context.record.event("warning", message)
    subject.trained = False


def drop_learned_positions(subject: Subject) -> None:
    """Take learned positions out of a language model whose new parts know the order, and no longest text."""
    if isinstance(subject.model, Gpt) and subject.model.position_embedding is not None:
        subject.model.position_embedding = None
        subject.configs["main"] = {**subject.configs["main"], "positions": "none"}


def _require(subject: Subject, found: dict[str, nn.Module], part: str) -> None:
    if not found:
        raise SpecError.of("model", type(subject.model).__name__, f"has no {part} left to swap", REMEDY)
