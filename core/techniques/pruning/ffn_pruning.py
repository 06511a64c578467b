"""FFN pruning: take out the hidden units of the feed-forward networks that matter least.

Paper: https://arxiv.org/abs/2305.11627 (LLM-Pruner), sections 3.1 and 3.2. A unit is its row of the up (and gate)
projection, its bias and its column of the down projection. Here the attention stays whole: see width_pruning.
"""

from core.algorithms.structured.units import Units, ffn_units
from core.context import Context
from core.models.anatomy import anatomy
from core.subject import Subject
from core.techniques.parts import NO_DENSE_FFN
from core.techniques.pruning.coupled import CoupledPruning


class FfnPruning(CoupledPruning):
    """Remove the least important hidden units of feed-forward networks."""

    refuses = {
        **CoupledPruning.refuses,
        NO_DENSE_FFN: "There are no hidden units to prune: remove one of the two steps.",
    }

    def units(self, subject: Subject) -> list[Units]:
        known = anatomy(subject.model)
        known.require("feed-forward networks")
        pruned = [name for name in known.chain[self.pruned_blocks] if name in known.feeds]
        units = [ffn_units(subject.model, known.feeds[name]) for name in pruned]
        return [group for group in units if group.count]

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune; log which networks are not dense (such as experts) and are skipped."""
        known = anatomy(subject.model)
        others = [name for name in known.chain[self.pruned_blocks] if name not in known.feeds]
        if others:
            message = "their feed-forward networks were replaced and are not pruned"
            context.record.event("warning", f"{', '.join(others)}: {message}")
        super().apply(subject, context)
