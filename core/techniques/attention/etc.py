"""ETC: long tokens attend to their neighbours and to global tokens, which attend to all, with labelled relations.

Paper: https://arxiv.org/abs/2004.08483. Projections carry over; the labels' vectors and the global tokens are new, so
train after it. The paper's base models have radius 84 and offsets clipped at 12, its large ones 169 and 24. Here the
global tokens are learned ones and the text is cut into equal segments in the place of sentences. Projections are
shared between global and long tokens. Not built: contrastive pretraining (CPC), and lifting from BERT's weights. For
bidirectional models: the paper has no causal one.
"""

from typing import Any

from pydantic import Field

from core.nn.attention.etc import EtcAttention
from core.nn.attention.full import FullAttention
from core.technique import INTEGER_CODES
from core.techniques.attention.long_tokens import LongTokens


class Etc(LongTokens):
    """Replace full attention with global-local attention with relative position labels."""

    paper = "https://arxiv.org/abs/2004.08483"
    refuses = {
        **LongTokens.refuses,
        INTEGER_CODES: "Its position labels are new and need training: put etc before the step that quantizes.",
    }

    radius: int = Field(84, ge=1, le=65_536, description="tokens that a token attends to on either side")
    global_tokens: int = Field(
        16,
        ge=1,
        le=4096,
        description="learned global tokens: the first for the whole text, each other one for a segment",
    )
    max_distance: int = Field(12, ge=0, le=120, description="largest offset with a label of its own")
    hard: bool = Field(
        False, description="global tokens attend only to their own segment; the first still attends to all"
    )
    isolated: bool = Field(False, description="tokens do not attend to neighbours in other segments")

    def label(self) -> str:
        """The radius, the global tokens and which structure is kept."""
        kept = "".join(f", {name}" for name in ("hard", "isolated") if getattr(self, name))
        return f"radius {self.radius}, {self.global_tokens} global{kept}"

    def made(self, attention: FullAttention, length: int) -> tuple[EtcAttention, dict[str, Any]]:
        """The pattern with its labels, and how many of them there are."""
        made = EtcAttention.from_attention(
            attention,
            radius=self.radius,
            max_distance=self.max_distance,
            global_tokens=self.global_tokens,
            length=length,
            hard=self.hard,
            isolated=self.isolated,
        )
        return made, {"radius": self.radius, "labels": made.long_biases.shape[1]}

    def idle(self, length: int) -> str | None:
        """Every token is within the radius."""
        covered = f"radius {self.radius} covers all {length} tokens: only the position labels are new"
        return covered if length <= self.radius else None
