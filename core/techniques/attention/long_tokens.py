"""What the steps of sparse attention ask of a built-in Transformer, and how global tokens get into one."""

from core.context import Context
from core.errors import SpecError
from core.nn.attention.full import FullAttention
from core.nn.tokens.global_tokens import GlobalTokens
from core.subject import Subject
from core.swapping import full_attentions, transformer


def bidirectional_attentions(subject: Subject, reason: str) -> dict[str, FullAttention]:
    """The model's full attentions by name; raises SpecError where one is causal, which is refused for `reason`."""
    found = full_attentions(subject)
    if any(attention.causal for attention in found.values()):
        remedy = "Choose builtin:vit or builtin:encoder; for builtin:gpt take sliding_window or block_local."
        raise SpecError.of("model", type(subject.model).__name__, f"is causal: {reason}", remedy)
    return found


def add_global_tokens(subject: Subject, context: Context, count: int) -> None:
    """Put `count` learned tokens in front of the model's own; nothing for 0."""
    if count:
        tokens = GlobalTokens(count, transformer(subject).dim).to(next(subject.model.parameters()))
        tokens.initialize_(context.generator("global_tokens"))
        subject.replace("global_tokens", tokens)
        subject.trained = False  # the new tokens say nothing yet
