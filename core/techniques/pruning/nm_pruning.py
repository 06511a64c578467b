"""N:M pruning: of every M consecutive inputs keep the N weights that matter most.

Paper: https://arxiv.org/abs/2104.08378. Here scored by magnitude, once and for all; a `train` after it trains
under the fixed masks (ASP). Weights that an earlier step pruned stay pruned.
"""

from typing import Literal

import torch
from pydantic import Field

from core.context import Context
from core.families import Family
from core.masks import check_pattern, divisible_weights, nm_mask, sparsity_by_layer
from core.subject import Subject
from core.techniques.base import INTEGER_CODES, MASK, OneShot


class NmPruning(OneShot):
    """Keep the n largest of every m consecutive weights along the inputs, as sparse kernels want it."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2104.08378"
    leaves = frozenset({MASK})
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put nm_pruning before the step that quantizes."}

    n: int = Field(2, ge=1, le=31, description="weights kept in a group")
    m: int = Field(4, ge=2, le=32, description="consecutive input channels of a group")
    indivisible: Literal["refuse", "skip"] = Field(
        "refuse", description="what becomes of a layer whose input channels m does not divide"
    )

    def label(self) -> str:
        """The pattern: 2:4."""
        return f"{self.n}:{self.m}"

    def check(self, subject: Subject) -> None:
        """n is below m, and m divides every layer's input channels."""
        check_pattern(subject.model, self.n, self.m, self.indivisible)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Prune at once."""
        check_pattern(subject.model, self.n, self.m, self.indivisible)
        for name, weight in divisible_weights(subject.model, self.m).items():
            scores, old = weight.abs(), subject.mask(name)
            if old is not None:
                scores.masked_fill_(~old, -1.0)
            mask = nm_mask(scores, self.n, self.m)
            subject.constrain(name, mask=mask if old is None else mask & old)
        subject.details["layers"] = sparsity_by_layer(subject)
