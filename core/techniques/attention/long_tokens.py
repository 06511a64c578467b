"""What the steps of sparse attention ask of a built-in Transformer, and how their attentions get into one."""

from typing import Any

from core.algorithms.module_swapping import full_attentions, transformer
from core.algorithms.token_count import token_count
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.block_local import BlockLocalAttention
from core.nn.attention.full import FullAttention
from core.nn.attention.swapped import SwappedAttention
from core.nn.tokens.global_tokens import GlobalTokens
from core.subject import Subject
from core.technique import REDUCED_TOKENS, OneShot
from core.techniques.parts import NEEDS_FULL_ATTENTION, OTHER_ATTENTION

REFUSES = {
    **NEEDS_FULL_ATTENTION,
    REDUCED_TOKENS: "Blocks that reduce tokens compute attention themselves: remove one of the two steps.",
}


def bidirectional_attentions(subject: Subject, reason: str) -> dict[str, FullAttention]:
    """The model's full attentions by name; raises SpecError if one is causal, which is refused for `reason`."""
    found = full_attentions(subject)
    if any(attention.causal for attention in found.values()):
        remedy = "Choose builtin:vit or builtin:encoder; for builtin:gpt use sliding_window or block_local."
        raise SpecError.of("model", type(subject.model).__name__, f"is causal: {reason}", remedy)
    return found


def add_global_tokens(subject: Subject, context: Context, count: int) -> None:
    """Put `count` learned tokens in front of the model's own; nothing for 0.

    Layers of an earlier step, which attend within blocks, keep them apart from the text.
    """
    if count:
        tokens = GlobalTokens(count, transformer(subject).dim).to(next(subject.model.parameters()))
        tokens.initialize_(context.generator("global_tokens"))
        subject.replace("global_tokens", tokens)
        for module in subject.model.modules():
            if isinstance(module, BlockLocalAttention):
                module.global_tokens = count
        subject.trained = False  # the new tokens say nothing yet


class LongTokens(OneShot):
    """Base: every attention of a bidirectional model becomes one that is made for the model's longest text."""

    family = Family.ATTENTION
    limits_length = True
    leaves = OTHER_ATTENTION
    refuses = REFUSES

    def made(self, attention: FullAttention, length: int) -> tuple[SwappedAttention, dict[str, Any]]:
        """What takes an attention's place in texts of at most `length` tokens, and what is reported of it."""
        raise NotImplementedError(type(self).__name__)

    def idle(self, length: int) -> str | None:
        """Why no pair of tokens is left out of texts of this length; None where some are."""
        raise NotImplementedError(type(self).__name__)

    def check(self, subject: Subject) -> None:
        """The model is bidirectional, and knows how long its texts may get."""
        bidirectional_attentions(subject, "its global tokens would pass information from later tokens")
        token_count(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention, whose projections and masks stay, and put the global tokens in."""
        self.check(subject)
        length = token_count(subject)
        rows = []
        for name, attention in full_attentions(subject).items():
            made, report = self.made(attention, length)
            made.initialize_(context.generator(name))
            for parameter in made.parameters(recurse=False):
                parameter.data = parameter.data.to(subject.dtype)
            subject.replace(name, made)
            rows.append({"name": name, **report})
        add_global_tokens(subject, context, made.global_tokens)
        if (message := self.idle(length)) is not None:
            context.record.event("warning", message)
        subject.details["layers"] = rows
