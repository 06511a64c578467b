"""Block-local attention: a token sees only the tokens of its own block, with the weights it has.

Paper: https://arxiv.org/abs/1801.10198 (local attention of the Transformer decoder). Blocks never see one another, so
swap only some of the layers where that matters, as the paper alternates it with attention over everything.
"""

from pydantic import Field

from core.algorithms.module_swapping import full_attentions
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.block_local import BlockLocalAttention
from core.nn.attention.full import FullAttention
from core.subject import Subject
from core.technique import OneShot
from core.techniques.attention.long_tokens import REFUSES
from core.techniques.parts import NO_FULL_ATTENTION, SWAPPED_ATTENTION


class BlockLocal(OneShot):
    """Replace full attention with attention within blocks. Decoding then caches only one block's keys and values."""

    family = Family.ATTENTION
    paper = "https://arxiv.org/abs/1801.10198"
    leaves = frozenset({SWAPPED_ATTENTION})
    leaves_with = {"every=1": frozenset({NO_FULL_ATTENTION})}
    refuses = REFUSES

    block: int = Field(64, ge=1, le=131_072, description="tokens per block")
    every: int = Field(1, ge=1, le=128, description="replace every n-th layer, starting with the first")

    def label(self) -> str:
        """The block's size, and how many layers keep their attention."""
        return f"blocks of {self.block}" + (f", one layer in {self.every}" if self.every > 1 else "")

    def check(self, subject: Subject) -> None:
        """The model has full attentions, and its classes are not read from one block."""
        self._attentions(subject)
        if self.every == 1 and getattr(subject.model, "cls", None) is not None:
            message = "would limit the class token, which the head reads, to its own block"
            raise SpecError.of("every", self.every, message, "Set it to 2, or the model's pooling to mean.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap the attentions; the projections stay the same, masks included."""
        self.check(subject)
        length = subject.task.length
        if length is not None and length <= self.block:
            context.record.event("warning", f"a block of {self.block} covers the task's {length} tokens: no effect")
        attentions = self._attentions(subject)
        for name, attention in attentions.items():
            subject.replace(name, BlockLocalAttention.from_attention(attention, block=self.block))
        subject.details["layers"] = [{"name": name, "block": self.block} for name in attentions]

    def _attentions(self, subject: Subject) -> dict[str, FullAttention]:
        found = list(full_attentions(subject).items())
        return dict(found[:: self.every])
