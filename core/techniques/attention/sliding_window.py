"""Sliding window: every token attends only to its nearest neighbours, with the weights it has.

Paper: https://arxiv.org/abs/2004.05150 (Longformer); as Mistral uses it, https://arxiv.org/abs/2310.06825. Here in
every block. Causal models see the `window` last tokens, others window - 1 on either side. Global tokens are learned
ones in front, not tokens of the text, and share the projections that Longformer has twice.
"""

from pydantic import Field
from torch import nn

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.full import FullAttention
from core.nn.attention.huggingface_sliding_window import HuggingFaceSlidingWindow, unsupported
from core.nn.attention.sliding_window import SlidingWindowAttention
from core.nn.tokens.block import ReducingBlock
from core.subject import Subject
from core.technique import OneShot
from core.techniques.attention.long_tokens import REFUSES, add_global_tokens, bidirectional_attentions
from core.techniques.parts import OTHER_ATTENTION


class SlidingWindow(OneShot):
    """Replace full attention with attention within a window. Decoding then caches only the window's keys and values."""

    family = Family.ATTENTION
    paper = "https://arxiv.org/abs/2004.05150"
    leaves = OTHER_ATTENTION
    refuses = REFUSES

    window: int = Field(
        64, ge=1, le=131_072, description="tokens that a token attends to on one side, including itself"
    )
    global_tokens: int = Field(
        0,
        ge=0,
        le=4096,
        description="learned global tokens, which attend to all and are attended to by all; not in causal models",
    )

    def label(self) -> str:
        """The window's size, and how many tokens are global."""
        return f"{self.window} tokens" + (f", {self.global_tokens} global" if self.global_tokens else "")

    def check(self, subject: Subject) -> None:
        """The model has full attentions that can be swapped, and calls them; with global tokens, no causal ones."""
        reducing = next((n for n, m in subject.model.named_modules() if isinstance(m, ReducingBlock)), None)
        if reducing is not None:
            message = "reduces tokens and computes attention itself"
            raise SpecError.of("model.source", reducing, message, "Remove one of the two steps.")
        self._attentions(subject)
        if self.global_tokens:
            bidirectional_attentions(subject, "global tokens would pass information from later tokens")

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention; the projections stay the same, masks included."""
        attentions = self._attentions(subject)
        length = subject.task.length
        if length is not None and length <= self.window:
            context.record.event("warning", f"window {self.window} covers the task's {length} tokens: no effect")
        for name, attention in attentions.items():
            subject.replace(name, self._made(attention))
        add_global_tokens(subject, context, self.global_tokens)
        swapped = {name: subject.model.get_submodule(name) for name in attentions}
        subject.details["layers"] = [{"name": name, "window": made.window} for name, made in swapped.items()]

    def _made(self, attention: nn.Module) -> SlidingWindowAttention | HuggingFaceSlidingWindow:
        if isinstance(attention, FullAttention):
            settings = {"window": self.window, "global_tokens": self.global_tokens}
            return SlidingWindowAttention.from_attention(attention, **settings)
        return HuggingFaceSlidingWindow.from_attention(attention, self.window)

    def _attentions(self, subject: Subject) -> dict[str, nn.Module]:
        modules = dict(subject.model.named_modules())
        found = {name: m for name, m in modules.items() if type(m) is FullAttention or unsupported(m) is None}
        if not found:
            reasons = [unsupported(m) for m in modules.values() if type(m).__name__.endswith("Attention")]
            raise SpecError.of(
                "model",
                type(subject.model).__name__,
                f"has no attention that can be replaced: {reasons[0] if reasons else 'it has none at all'}",
                "Choose builtin:vit, builtin:gpt or builtin:encoder, or a LLaMA-like, OPT or GPT-2 model.",
            )
        return found
