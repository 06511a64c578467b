"""RWKV: recurrent blocks that train in parallel and decode with a state of fixed size, in place of a Transformer's.

Papers: https://arxiv.org/abs/2305.13048 (version 4), https://arxiv.org/abs/2404.05892 (versions 5 and 6). Embeddings,
norms and head stay, everything else of a block is new, begun as in the authors' code. Learned positions are taken out,
for recurrence knows the order and has no longest text. The authors' larger learning rates for decays are not built.
"""

from typing import Literal

from pydantic import Field

from core.algorithms.module_swapping import drop_learned_positions, forget_training, whole_blocks
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.rwkv.block import RwkvBlock
from core.nn.rwkv.mixing import Place
from core.nn.transformer import TransformerBlock
from core.subject import Subject
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import NEEDS_PLAIN_BLOCKS, OTHER_MIXING, WHOLE_BLOCKS


class Rwkv(OneShot):
    """Replace whole blocks with RWKV blocks of time mixing and channel mixing."""

    family = Family.ARCHITECTURE
    paper = "https://arxiv.org/abs/2305.13048"
    leaves = OTHER_MIXING | WHOLE_BLOCKS
    refuses = REFUSES | NEEDS_PLAIN_BLOCKS

    version: Literal[4, 5, 6] = Field(
        6, description="4: one mean per channel; 5: one matrix per head; 6: as 5, with decays that depend on the token"
    )
    ffn_ratio: float | None = Field(
        None,
        gt=0,
        le=16,
        description="hidden width of channel mixing as a multiple of dim; the paper's if empty (4; 3.5 from version 5)",
        json_schema_extra={"when_empty": "paper's"},
    )

    def label(self) -> str:
        """The version."""
        return f"RWKV-{self.version}"

    def check(self, subject: Subject) -> None:
        """The model is causal, and its blocks are a Transformer's still."""
        for block in whole_blocks(subject).values():
            if not block.attention.causal:
                message = "is bidirectional, and a recurrent state only goes forward"
                raise SpecError.of("model", type(subject.model).__name__, message, "Choose builtin:gpt.")
            dim, head_dim = _widths(block)
            if self.version != 4 and dim % head_dim:
                message = (
                    f"keeps one matrix per head, and {dim} channels cannot be divided into heads of width {head_dim}"
                )
                raise SpecError.of("version", self.version, message, "Choose version 4.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every block, and take out learned positions."""
        self.check(subject)
        forget_training(subject, context, "blocks")
        blocks = whole_blocks(subject)
        generator = context.generator("rwkv")
        rows = []
        for index, (name, block) in enumerate(blocks.items()):
            made = self._made(block, first=index == 0)
            made.initialize_(Place(index, len(blocks)), generator)
            subject.replace(name, made.to(block.norm1.weight.device, subject.dtype).train(block.training))
            rows.append({"name": name, "channels": made.dim, "state (bytes)": _state_bytes(made)})
        drop_learned_positions(subject)
        subject.details["layers"] = rows

    def _made(self, block: TransformerBlock, *, first: bool) -> RwkvBlock:
        dim, head_dim = _widths(block)
        ratio = self.ffn_ratio or (4.0 if self.version == 4 else 3.5)
        return RwkvBlock(dim, version=self.version, hidden=max(1, round(ratio * dim)), head_dim=head_dim, first=first)


def _widths(block: TransformerBlock) -> tuple[int, int]:
    """Channels, and those of a head."""
    head_dim = block.attention.head_dim
    assert isinstance(head_dim, int)
    return block.norm1.weight.shape[0], head_dim


def _state_bytes(block: RwkvBlock) -> int:
    """What decoding keeps of all tokens before: the state and two tokens, of one example in float32."""
    per_channel = 3 if block.version == 4 else block.head_dim
    return 4 * block.dim * (per_channel + 2)
