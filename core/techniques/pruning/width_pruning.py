"""Width pruning: take out heads and FFN units together, channels of the residual stream, or of residual blocks.

Paper: https://arxiv.org/abs/2305.11627 (LLM-Pruner), sections 3.1 and 3.2: coupled structures are found, scored as a
whole and cut out. The paper leaves the first and last blocks whole (of LLaMA's 32: skip_first 4, skip_last 2), where
the stream is cut through everything. Here heads compete with heads and units with units. What is added together in a
convolutional network stays whole.
"""

from pydantic import Field

from core.algorithms.structured.stream import KIND, stream_units
from core.algorithms.structured.units import Units, channel_units, ffn_units, head_units
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.subject import Subject
from core.techniques.parts import FEWER_HEADS, NEEDS_BOTH_HALVES
from core.techniques.pruning.coupled import CoupledPruning


class WidthPruning(CoupledPruning):
    """Remove the least important heads, FFN units and channels."""

    leaves = frozenset({FEWER_HEADS})
    refuses = CoupledPruning.refuses | NEEDS_BOTH_HALVES

    residual_ratio: float = Field(0.0, ge=0, lt=1, description="share of the residual stream's channels to remove")

    def units(self, subject: Subject) -> list[Units]:
        model = subject.model
        channels = channel_units(model)
        if channels:
            return channels[self.pruned_blocks]
        known = anatomy(model)
        known.require("blocks' parts")
        known.require("heads")
        units = []
        for block in known.blocks[self.pruned_blocks]:
            units += [head_units(model, known, block), ffn_units(model, block)]
        if self.residual_ratio:
            units.append(stream_units(model))
        return [group for group in units if group.count]

    def ratio(self, kind: str) -> float:
        return self.residual_ratio if kind == KIND else self.pruning_ratio

    def check(self, subject: Subject) -> None:
        """As for all coupled units; and channels of a stream can be scored by their weights only."""
        if self.residual_ratio and self.importance == "taylor":
            message = "needs one gate per unit, which residual channels do not have"
            raise SpecError.of("importance", self.importance, message, "Choose first_order, mixed, l2 or random.")
        if self.residual_ratio and channel_units(subject.model):
            message = "is only supported for Transformers, not for the residual connections of convolutional networks"
            raise SpecError.of("residual_ratio", self.residual_ratio, message, "Set it to 0.")
        super().check(subject)
