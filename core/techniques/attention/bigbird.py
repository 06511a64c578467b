"""BigBird: attention to a window, a few random blocks and global tokens, in time linear in the length.

Paper: https://arxiv.org/abs/2007.14062. Its internal construction (ITC) makes the first and the last block global, its
extended one (ETC) adds global tokens; here those are learned, in front of the others. The weights stay, and the
random blocks are drawn once. The paper's base models: blocks of 64 and 3 random ones (ITC), blocks of 84, 256 global
tokens and no random blocks (ETC). For bidirectional models: the paper has no causal one.
"""

from typing import Any

from pydantic import Field

from core.nn.attention.bigbird import BigBirdAttention, sees_all
from core.nn.attention.block_layout import BlockLayout
from core.nn.attention.full import FullAttention
from core.techniques.attention.long_tokens import LongTokens


class BigBird(LongTokens):
    """Replace full attention with window, random and global blocks."""

    paper = "https://arxiv.org/abs/2007.14062"

    block: int = Field(
        64, ge=1, le=4096, description="tokens per block; a token attends to its own block and one on either side"
    )
    random_blocks: int = Field(
        3, ge=0, le=1024, description="further random blocks that each block attends to, drawn once per head"
    )
    global_tokens: int = Field(
        0,
        ge=0,
        le=4096,
        description="learned global tokens, which attend to all and are attended to by all; 0: first and last block",
    )

    def label(self) -> str:
        """Blocks, and what is global."""
        front = f", {self.global_tokens} global" if self.global_tokens else ""
        return f"blocks of {self.block}, {self.random_blocks} random{front}"

    def made(self, attention: FullAttention, length: int) -> tuple[BigBirdAttention, dict[str, Any]]:
        """The pattern, drawn for each attention anew, and how much of it is computed."""
        made = BigBirdAttention.from_attention(
            attention, block=self.block, random=self.random_blocks, length=length, global_tokens=self.global_tokens
        )
        return made, {"blocks": made.n_blocks, "pairs computed (%)": 100 * _density(made)}

    def idle(self, length: int) -> str | None:
        """A block sees all the others."""
        n_blocks = -(-length // self.block)
        if not sees_all(n_blocks, self.random_blocks, internal=not self.global_tokens):
            return None
        return f"{n_blocks} blocks of {self.block} tokens already cover everything: attention stays full"


def _density(attention: BigBirdAttention) -> float:
    """Share of the pairs of blocks that are multiplied, for the longest text."""
    if attention.is_full:
        return 1.0
    layout = BlockLayout(attention.block, attention.global_tokens, attention.length)
    return sum(part.keys[0].numel() for part in attention.pattern(layout)) / layout.n_blocks**2
