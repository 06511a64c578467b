"""Token merging: in every block of a Vision Transformer the most similar tokens become one.

Paper: https://arxiv.org/abs/2210.09461 (ToMe). No weight changes, and no training is needed; attention counts a
merged token as often as the patches that it stands for (section 3, proportional attention).
"""

from pydantic import Field

from core.context import Context
from core.families import Family
from core.nn.tokens.merging import MergingBlock
from core.subject import Subject
from core.technique import REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import NEEDS_PLAIN_BLOCKS, QUANTIZED_PRODUCTS
from core.techniques.pruning.token_blocks import tokens_of


class TokenMerging(OneShot):
    """Merge the most similar tokens of an image, a few in each block."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2210.09461"
    leaves = frozenset({REDUCED_TOKENS})
    refuses = {
        **NEEDS_PLAIN_BLOCKS,
        QUANTIZED_PRODUCTS: "Token-reducing blocks compute full attention: remove one of the two steps.",
        ROTATED_STREAM: "Tokens of a rotated stream are not merged: remove one of the two steps.",
        REDUCED_TOKENS: "A block can reduce its tokens in only one way: remove one of the two steps.",
    }

    merged: int = Field(4, ge=1, le=4096, description="tokens that each block merges away (r)")

    def label(self) -> str:
        """The tokens a block."""
        return f"{self.merged} per block"

    def check(self, subject: Subject) -> None:
        """The model is a Vision Transformer with known blocks."""
        tokens_of(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every block for one that merges."""
        tokens = tokens_of(subject)
        left = tokens.patches + tokens.protected
        rows = []
        for name, parts in tokens.parts.items():
            subject.replace(name, MergingBlock(parts, tokens.head_dim, self.merged, tokens.protected))
            merged = min(self.merged, (left - tokens.protected) // 2)
            rows.append({"name": name, "tokens in": left, "tokens out": left - merged})
            left -= merged
        subject.details["layers"] = rows
