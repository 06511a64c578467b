"""Wanda: drop the weights with the smallest |weight| * ||input||, row by row.

Paper: https://arxiv.org/abs/2306.11695. Weights compete within an output row, and blocks are pruned in the order of
execution, each by the inputs that the pruned ones before it give. With `comparison_group: layer` they compete within
their layer (section 5 of the paper compares the two). Here also for convolutions (a row is a filter, an
input the values under one weight of it), for experts (each by the tokens that reach it; by magnitude where none does)
and for layers outside of blocks, the embeddings and the head excepted.
"""

from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor

from core.algorithms.masks import keep_largest, keep_largest_in_rows, nm_mask, sparsity_by_layer
from core.context import Context
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, NM_PATTERN
from core.techniques.pruning.calibrated import CalibratedPruning
from core.techniques.pruning.wanda_layers import prune_by_input_norms


def keep_rows(scores: Tensor, sparsity: float) -> Tensor:
    """Mask of scores [rows, d] that drops the floor(sparsity * d) smallest of each row."""
    n_dropped = int(sparsity * scores.shape[1] + 1e-9)  # 0.29 * 100 is a little less than 29
    return keep_largest_in_rows(scores, scores.shape[1] - n_dropped)


def keep_layer(scores: Tensor, sparsity: float) -> Tensor:
    """Mask of scores [rows, d] that drops the floor(sparsity * rows * d) smallest of all."""
    return keep_largest(scores, scores.numel() - int(sparsity * scores.numel() + 1e-9))


class Wanda(CalibratedPruning):
    """Set the weights with the smallest |weight| · ‖input‖ in each row to zero, without changing the others."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2306.11695"
    leaves = frozenset({MASK})
    leaves_with = {"structure=n:m": frozenset({NM_PATTERN})}
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put wanda before the step that quantizes."}

    comparison_group: Literal["output", "layer"] = Field(
        "output", description="weights that compete for unstructured: those of an output, or of the whole layer"
    )

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune block after block."""
        keep = partial(keep_rows if self.comparison_group == "output" else keep_layer, sparsity=self.sparsity)
        if self.structure == "n:m":
            keep = partial(nm_mask, n=self.n, m=self.m)
        prune_by_input_norms(subject, context, self.layers(subject), self.calibration_examples, keep)
        subject.details["layers"] = sparsity_by_layer(subject)
