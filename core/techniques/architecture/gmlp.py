"""gMLP: one gated network a block, in which a linear map over the tokens takes the place of attention.

Paper: https://arxiv.org/abs/2105.08050. A block's first norm stays, everything else of it is new. The paper's models
have no positions; here those of the model stay. Models that predict the next token get lower triangular maps, for
which decoding keeps the gates' inputs of all tokens, and which know no text longer than the model's.
"""

from pydantic import Field

from core.algorithms.module_swapping import forget_training, whole_blocks
from core.algorithms.token_count import token_count
from core.context import Context
from core.families import Family
from core.nn.gmlp import GmlpBlock
from core.nn.transformer import TransformerBlock
from core.subject import Subject
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import NEEDS_PLAIN_BLOCKS, OTHER_MIXING, WHOLE_BLOCKS


class Gmlp(OneShot):
    """Replace whole blocks with gated MLPs that mix tokens in a spatial gate."""

    family = Family.ARCHITECTURE
    limits_length = True
    paper = "https://arxiv.org/abs/2105.08050"
    leaves = OTHER_MIXING | WHOLE_BLOCKS
    refuses = REFUSES | NEEDS_PLAIN_BLOCKS

    ffn_ratio: float = Field(
        6.0, gt=0, le=32, description="hidden width as a multiple of dim, before the gate halves it"
    )

    def label(self) -> str:
        """The width, where it is not the paper's."""
        return "" if self.ffn_ratio == 6 else f"width × {self.ffn_ratio:g}"

    def check(self, subject: Subject) -> None:
        """The model's blocks are a Transformer's still, and its number of tokens is known."""
        whole_blocks(subject)
        token_count(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every block."""
        blocks, tokens = whole_blocks(subject), token_count(subject)
        forget_training(subject, context, "blocks")
        generator = context.generator("gmlp")
        rows = []
        for name, block in blocks.items():
            made = self._made(block, tokens)
            made.initialize_(generator)
            subject.replace(name, made.to(block.norm1.weight.device, subject.dtype).train(block.training))
            rows.append({"name": name, "tokens": tokens, "gated units": made.hidden // 2})
        subject.details["layers"] = rows

    def _made(self, block: TransformerBlock, tokens: int) -> GmlpBlock:
        dim, causal = block.norm1.weight.shape[0], block.attention.causal
        assert isinstance(causal, bool)
        return GmlpBlock(dim, hidden=2 * max(1, round(self.ffn_ratio * dim / 2)), tokens=tokens, causal=causal)
