"""BigBird: attention to a window, a few random blocks and global tokens, in time linear in the length.

Paper: https://arxiv.org/abs/2007.14062. Its internal construction (ITC) makes the first and the last block global, its
extended one (ETC) adds global tokens; here those are learned, in front of the others. The weights stay, and the
random blocks are drawn once. The paper's base models: blocks of 64 and 3 random ones (ITC), blocks of 84, 256 global
tokens and no random blocks (ETC). For bidirectional models: the paper has no causal one.
"""

from pydantic import Field

from core.context import Context
from core.families import Family
from core.nn.attention.bigbird import BigBirdAttention
from core.nn.attention.block_layout import BlockLayout
from core.subject import Subject
from core.techniques.attention.long_tokens import add_global_tokens, bidirectional_attentions
from core.techniques.base import REDUCED_TOKENS, OneShot
from core.techniques.parts import NEEDS_FULL_ATTENTION, OTHER_ATTENTION
from core.token_count import token_count


class BigBird(OneShot):
    """Swap full attention for window, random and global blocks."""

    family = Family.ATTENTION
    paper = "https://arxiv.org/abs/2007.14062"
    leaves = OTHER_ATTENTION
    refuses = {
        **NEEDS_FULL_ATTENTION,
        REDUCED_TOKENS: "Blocks that reduce tokens attend by themselves: leave one of the two steps out.",
    }

    block: int = Field(64, ge=1, le=4096, description="tokens of a block; a token sees its own and one on either side")
    random_blocks: int = Field(3, ge=0, le=1024, description="further blocks that a block sees, drawn once a head")
    global_tokens: int = Field(
        0, ge=0, le=4096, description="learned tokens that see all and are seen by all; 0: first and last block are"
    )

    def label(self) -> str:
        """Blocks, and what is global."""
        front = f", {self.global_tokens} global" if self.global_tokens else ""
        return f"blocks of {self.block}, {self.random_blocks} random{front}"

    def check(self, subject: Subject) -> None:
        """The model is bidirectional, and knows how long its texts may get."""
        bidirectional_attentions(subject, "its global tokens would pass on what comes later")
        token_count(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention; the projections stay the same, masks included."""
        self.check(subject)
        length = token_count(subject)
        rows = []
        for name, attention in bidirectional_attentions(subject, "").items():
            made = BigBirdAttention.from_attention(
                attention,
                block=self.block,
                random=self.random_blocks,
                length=length,
                global_tokens=self.global_tokens,
            )
            made.initialize_(context.generator(name))
            subject.replace(name, made)
            rows.append({"name": name, "blocks": made.n_blocks, "pairs computed (%)": 100 * _density(made)})
        add_global_tokens(subject, context, self.global_tokens)
        if made.is_full:
            message = (
                f"{made.n_blocks} blocks of {self.block} tokens are too few to leave any out: attention stays full"
            )
            context.record.event("warning", message)
        subject.details["layers"] = rows


def _density(attention: BigBirdAttention) -> float:
    """Share of the pairs of blocks that are multiplied, for the longest text."""
    if attention.is_full:
        return 1.0
    layout = BlockLayout(attention.block, attention.global_tokens, attention.length)
    return sum(part.keys[0].numel() for part in attention.pattern(layout)) / layout.n_blocks**2
