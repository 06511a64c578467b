"""Width pruning: take out heads and FFN units together, or the channels inside residual blocks.

Paper: https://arxiv.org/abs/2305.11627 (LLM-Pruner), sections 3.1 and 3.2: coupled structures are found, scored as a
whole and cut out. The paper leaves the first and last blocks whole (of LLaMA's 32: skip_first 4, skip_last 2). Here
heads compete with heads and units with units.
"""

from core.models.anatomy import anatomy
from core.structured.units import Units, channel_units, ffn_units, head_units
from core.subject import Subject
from core.techniques.pruning.coupled import CoupledPruning


class WidthPruning(CoupledPruning):
    """Cut out the heads and FFN units, or the channels of a residual network, that matter least."""

    def units(self, subject: Subject) -> list[Units]:
        model = subject.model
        channels = channel_units(model)
        if channels:
            return channels[self.pruned_blocks]
        known = anatomy(model)
        known.require("blocks")
        known.require("heads")
        units = []
        for block in known.blocks[self.pruned_blocks]:
            units += [head_units(model, known, block), ffn_units(model, block)]
        return [group for group in units if group.count]
