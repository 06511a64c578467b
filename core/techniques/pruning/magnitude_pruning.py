"""Magnitude pruning: drop the smallest weights, at once or along a cubic ramp while the model is trained.

Paper: https://arxiv.org/abs/1710.01878. Here with exact counts (no threshold), per layer or over all layers
together; weights that an earlier step pruned stay pruned and count towards the target.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from core.algorithms.masks import keep_largest, keep_largest_together, prunable_weights, sparsity_by_layer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, KEPT_WEIGHTS, MASK, OneShot, TrainingMethod, Update


def magnitude_masks(
    weights: Mapping[str, Tensor], old: Mapping[str, Tensor], sparsity: float, *, together: bool
) -> dict[str, Tensor]:
    """Masks that zero round(sparsity * n) weights of each layer, or of all `together`, none of `old` revived."""
    scores = {name: w.detach().abs().float() for name, w in weights.items()}
    for name, mask in old.items():
        scores[name].masked_fill_(~mask, -1.0)
    if together:
        masks = keep_largest_together(scores, _n_kept(sum(s.numel() for s in scores.values()), sparsity))
    else:
        masks = {name: keep_largest(s, _n_kept(s.numel(), sparsity)) for name, s in scores.items()}
    return {name: mask & old[name] if name in old else mask for name, mask in masks.items()}


def _n_kept(n: int, sparsity: float) -> int:
    return n - round(sparsity * n)


def cubic_sparsity(progress: float, initial: float, final: float) -> float:
    """Sparsity after this share of the ramp: fast at first, while many weights are redundant."""
    return final + (initial - final) * (1 - progress) ** 3


class MagnitudePruning(OneShot, TrainingMethod):
    """Set the smallest weights to zero: at once as a step, gradually inside train."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/1710.01878"
    leaves = frozenset({MASK})
    decides = frozenset({KEPT_WEIGHTS})
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put magnitude_pruning before the step that quantizes."}

    sparsity: float = Field(0.5, ge=0, lt=1, description="share of weights to set to zero")
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank weights within each layer, or in the whole model"
    )
    ramp_start: float = Field(0.0, ge=0, lt=1, description="inside train: share of the updates before the first mask")
    ramp_end: float = Field(0.75, gt=0, le=1, description="inside train: share of the updates until the last mask")
    update_every: int = Field(10, ge=1, description="inside train: updates between masks")

    _subject: Subject = PrivateAttr()
    _initial: float = PrivateAttr(0.0)

    def label(self) -> str:
        """Share of zeros, and what competes."""
        return f"{100 * self.sparsity:g} %" + (" global" if self.scope == "global" else "")

    def check(self, subject: Subject) -> None:
        """The model has weights to prune, and the ramp some length."""
        prunable_weights(subject.model)
        if self.ramp_start >= self.ramp_end:
            message = f"must be less than ramp_end, which is {self.ramp_end:g}"
            raise SpecError.of("ramp_start", self.ramp_start, message, "Start earlier or end later.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune at once."""
        self._prune(subject, self.sparsity)
        subject.details["layers"] = sparsity_by_layer(subject)

    def begin(self, subject: Subject, context: Context) -> None:
        """The ramp begins at the sparsity that earlier steps left."""
        self._subject = subject
        rows = sparsity_by_layer(subject)
        zeros = sum(row["sparsity"] * row["weights"] for row in rows)
        self._initial = zeros / sum(row["weights"] for row in rows)

    def after_optimizer(self, update: Update) -> None:
        """Grow the masks, every few updates."""
        first = int(self.ramp_start * update.total)
        last = max(first, int(self.ramp_end * update.total) - 1)
        due = update.index == last or (update.index < last and (update.index - first) % self.update_every == 0)
        if update.index < first or not due:
            return
        progress = (update.index - first) / (last - first) if last > first else 1.0
        self._prune(self._subject, cubic_sparsity(progress, self._initial, self.sparsity))

    def end(self, subject: Subject) -> None:
        """The masks are the subject's already."""
        subject.details["layers"] = sparsity_by_layer(subject)

    @torch.no_grad()
    def _prune(self, subject: Subject, sparsity: float) -> None:
        weights = prunable_weights(subject.model)
        old = {name: mask for name in weights if (mask := subject.mask(name)) is not None}
        for name, mask in magnitude_masks(weights, old, sparsity, together=self.scope == "global").items():
            subject.constrain(name, mask=mask)
