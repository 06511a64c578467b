"""N:M pruning: of every M consecutive inputs keep the N weights that matter most.

Paper: https://arxiv.org/abs/2104.08378. Here scored once and for all; a `train` after it trains under the fixed masks
(ASP). Weights that an earlier step pruned stay pruned. The scores are magnitude, Wanda's |weight| * ||input||
(https://arxiv.org/abs/2306.11695), or SparseGPT's (https://arxiv.org/abs/2301.00774), which changes the kept weights
as it goes. The latter two walk the model block by block on calibration data.
"""

from functools import partial
from typing import Literal

import torch
from pydantic import Field

from core.algorithms.masks import check_pattern, divisible_weights, nm_mask, sparsity_by_layer
from core.algorithms.second_order import NOfM
from core.algorithms.second_order_layers import SweepPlan, sweep_by_hessians
from core.context import Context
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, NM_PATTERN, OneShot
from core.techniques.pruning.wanda_layers import prune_by_input_norms


class NmPruning(OneShot):
    """Keep the n most important of every m consecutive weights along the inputs, the pattern of sparse kernels."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2104.08378"
    leaves = frozenset({MASK, NM_PATTERN})
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put nm_pruning before the step that quantizes."}

    n: int = Field(2, ge=1, le=31, description="weights kept per group")
    m: int = Field(4, ge=2, le=32, description="consecutive input channels per group")
    indivisible: Literal["refuse", "skip"] = Field(
        "refuse", description="how to treat a layer whose input channels m does not divide"
    )

    score: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        "magnitude", description="importance of weights; sparsegpt also updates the kept ones"
    )
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples, for wanda and sparsegpt"
    )

    def label(self) -> str:
        """The pattern, 2:4, and the score where it is not magnitude."""
        return f"{self.n}:{self.m}" + (f" {self.score}" if self.score != "magnitude" else "")

    def check(self, subject: Subject) -> None:
        """n is below m, and m divides every layer's input channels."""
        check_pattern(subject.model, self.n, self.m, self.indivisible)

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune at once."""
        check_pattern(subject.model, self.n, self.m, self.indivisible)
        layers = [name.removesuffix(".weight") for name in divisible_weights(subject.model, self.m)]
        if self.score == "sparsegpt":
            sweep_by_hessians(subject, context, layers, self.calibration_examples, SweepPlan(NOfM(self.n, self.m)))
        elif self.score == "wanda":
            keep = partial(nm_mask, n=self.n, m=self.m)
            prune_by_input_norms(subject, context, layers, self.calibration_examples, keep)
        else:
            self._prune_by_magnitude(subject)
        subject.details["layers"] = sparsity_by_layer(subject)

    @torch.no_grad()
    def _prune_by_magnitude(self, subject: Subject) -> None:
        for name, weight in divisible_weights(subject.model, self.m).items():
            scores, old = weight.abs(), subject.mask(name)
            if old is not None:
                scores.masked_fill_(~old, -1.0)
            mask = nm_mask(scores, self.n, self.m)
            subject.constrain(name, mask=mask if old is None else mask & old)
