"""Mamba: a selective state space in place of attention, or of whole blocks.

Paper: https://arxiv.org/abs/2312.00752. The paper's model has neither attention nor feed-forward networks: two Mambas
take a block's place, which at expand 2 and ffn_ratio 4 is as many parameters. So does this step by default. To
keep the feed-forward networks (trained, or made a mixture of experts), as hybrids do, set replaces: attention. What
takes their place is new. Learned positions are taken out: a state knows the order, and no longest text.
"""

from typing import Literal

from pydantic import Field

from core.algorithms.module_swapping import drop_learned_positions, forget_training, transformer, whole_blocks
from core.context import Context
from core.nn.mamba import Mamba, MambaBlock
from core.subject import Subject
from core.techniques.architecture.fresh import REFUSES
from core.techniques.architecture.recurrent import Recurrent
from core.techniques.parts import EXPERTS, NEEDS_FULL_ATTENTION, NEEDS_PLAIN_BLOCKS, OTHER_MIXING, WHOLE_BLOCKS

KEEP_EXPERTS = "Replacing whole blocks would also replace the experts: set replaces: attention."


class MambaStep(Recurrent):
    """Replace each block with two Mamba layers, or only its attention with one."""

    paper = "https://arxiv.org/abs/2312.00752"
    leaves = OTHER_MIXING
    leaves_with = {"replaces=block": WHOLE_BLOCKS}
    refuses = REFUSES | NEEDS_FULL_ATTENTION
    refuses_with = {"replaces=block": NEEDS_PLAIN_BLOCKS | {EXPERTS: KEEP_EXPERTS}}

    replaces: Literal["block", "attention"] = Field("block", description="what Mamba layers replace")
    n_states: int = Field(16, ge=1, le=256, description="state size per channel")
    expand: int = Field(2, ge=1, le=8, description="inner width as a multiple of dim")
    kernel_size: int = Field(4, ge=2, le=16, description="width of the convolution in tokens")

    def label(self) -> str:
        """What is swapped, and the state's size."""
        return f"{self.replaces}s, {self.n_states} states"

    def check(self, subject: Subject) -> None:
        """The model is causal and has attentions to swap, in blocks of nothing else than a Transformer's parts."""
        self.causal_attentions(subject)
        if self.replaces == "block":
            whole_blocks(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap."""
        forget_training(subject, context, f"{self.replaces}s")
        names = list(self.causal_attentions(subject))
        dim, weight = transformer(subject).dim, subject.model.get_parameter(f"{names[0]}.q.weight")
        generator = context.generator("mamba")
        settings = {"n_states": self.n_states, "expand": self.expand, "kernel_size": self.kernel_size}
        whole = self.replaces == "block"
        rows = []
        for name in names:
            made = MambaBlock(dim, **settings) if whole else Mamba(dim, **settings)
            made.initialize_(generator, n_layers=(1 + whole) * len(names))
            place = name.rpartition(".")[0] if whole else name
            made.to(weight.device, weight.dtype).train(subject.model.training)
            subject.replace(place, made)
            channels = self.expand * dim
            state = 4 * channels * (self.n_states + self.kernel_size - 1) * (1 + whole)
            rows.append({"name": place, "channels": channels, "states": self.n_states, "state (bytes)": state})
        drop_learned_positions(subject)
        subject.details["layers"] = rows
