"""FFN pruning: take out the hidden units of the feed-forward networks that matter least.

Paper: https://arxiv.org/abs/2305.11627 (LLM-Pruner), sections 3.1 and 3.2. A unit is its row of the up (and gate)
projection, its bias and its column of the down projection. Here the attention stays whole: see width_pruning.
"""

from core.models.anatomy import anatomy
from core.structured.units import Units, ffn_units
from core.subject import Subject
from core.techniques.pruning.coupled import CoupledPruning


class FfnPruning(CoupledPruning):
    """Cut out the hidden units of feed-forward networks that matter least."""

    def units(self, subject: Subject) -> list[Units]:
        known = anatomy(subject.model)
        known.require("blocks")
        units = [ffn_units(subject.model, block) for block in known.blocks[self.pruned_blocks]]
        return [group for group in units if group.count]
