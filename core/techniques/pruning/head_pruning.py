"""Head pruning: take out the attention heads that the loss hardly notices, in rounds.

Paper: https://arxiv.org/abs/1905.10650 (Michel et al.), section 4. The importance of a head is E |dL/dxi|, xi a factor
on its output at 1: the absolute value of each example's derivative, so that examples do not cancel; divided by the
layer's L2 norm, and compared over all layers. Here the pruned heads are cut out physically, the importances are
estimated again after each round, and one head a layer always stays. Where queries share keys and values (GQA) a
whole group goes. The norm hides that some layers matter more than others: a small ViT loses less without it.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.algorithms.structured.gates import gate_gradients
from core.algorithms.structured.importance import importance_of
from core.algorithms.structured.selection import best, global_counts
from core.algorithms.structured.units import Units, head_units, keep_
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.subject import Subject
from core.tasks.base import require_loss
from core.technique import INTEGER_CODES, LOW_RANK, OneShot
from core.techniques.parts import FEWER_HEADS, NO_HEADS


def head_importance(gradients: Tensor) -> Tensor:
    """Mean absolute derivative of each head's gate [heads], from those of every example [N, heads]."""
    return gradients.abs().mean(dim=0)


def normalized(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers' scores, each divided by its L2 norm; all zeros stay zeros."""
    return {name: score / score.norm().clamp(min=torch.finfo(score.dtype).tiny) for name, score in scores.items()}


class HeadPruning(OneShot):
    """Remove the attention heads that matter least to the loss."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/1905.10650"
    leaves = frozenset({FEWER_HEADS})
    refuses = {
        NO_HEADS: "There are no heads to prune: remove one of the two steps.",
        INTEGER_CODES: "Packed layers cannot be pruned: put head_pruning before the step that quantizes.",
        LOW_RANK: "Factored layers cannot be pruned: put head_pruning before the step that factors.",
    }

    pruning_ratio: float = Field(0.25, gt=0, lt=1, description="share of all heads to remove")
    importance: Literal["gradient", "magnitude", "random"] = Field(
        "gradient", description="gradient of the loss times the head's output, norm of its weights, or random"
    )
    normalize: bool = Field(True, description="normalize importances within each layer, as in the paper")
    rounds: int = Field(4, ge=1, le=100, description="number of rounds; each estimates importances again")
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples (windows for text)"
    )

    def label(self) -> str:
        """The share, and the score where it is not the paper's."""
        rival = "" if self.importance == "gradient" else f" {self.importance}"
        return f"{self.pruning_ratio:.0%} of heads{rival}" + ("" if self.normalize else " as they are")

    def check(self, subject: Subject) -> None:
        """The model has heads that can be told apart, and enough of them; gradients need a loss."""
        if self.importance == "gradient":
            require_loss(subject.task)
        units = self._units(subject)
        total = sum(group.count for group in units)
        dropped = round(self.pruning_ratio * total)
        if dropped < 1:
            message = f"removes none of {total} heads"
            raise SpecError.of("pruning_ratio", self.pruning_ratio, message, f"Choose more than {0.5 / total:.2g}.")
        if total - dropped < len(units):
            message = f"leaves {total - dropped} of {total} heads for {len(units)} layers, which need one each"
            most = int(100 * (1 - len(units) / total)) / 100
            remedy = f"Choose at most {most}." if most else "Choose a model with several heads per layer."
            raise SpecError.of("pruning_ratio", self.pruning_ratio, message, remedy)

    def apply(self, subject: Subject, context: Context) -> None:
        """Cut out in rounds."""
        self.check(subject)
        before = {group.gate: group for group in self._units(subject)}
        first: dict[str, Tensor] = {}
        alive = {name: torch.arange(group.count) for name, group in before.items()}
        total = sum(group.count for group in before.values())
        dropped = round(self.pruning_ratio * total)
        for index in range(self.rounds):
            context.record.progress(index / self.rounds, f"round {index + 1} of {self.rounds}")
            units = self._units(subject)
            scores = self._scores(subject, context, units)
            first = first or scores
            counts = global_counts(scores, total - round((index + 1) / self.rounds * dropped))
            for group in units:
                kept = best(scores[group.gate], counts[group.gate])
                alive[group.gate] = alive[group.gate][kept.cpu()]
                if len(kept) < group.count:
                    keep_(subject, group, kept)
        subject.details["layers"] = [_row(group, alive[name], first[name]) for name, group in before.items()]

    def _units(self, subject: Subject) -> list[Units]:
        known = anatomy(subject.model)
        known.require("heads")
        units = [head_units(subject.model, known, block) for block in known.attentions.values()]
        return [group for group in units if group.count]

    def _scores(self, subject: Subject, context: Context, units: list[Units]) -> dict[str, Tensor]:
        if self.importance == "gradient":
            gradients = gate_gradients(
                subject.model, subject.task, context.calibration(self.calibration_examples), units
            )
            scores = {name: head_importance(gradient) for name, gradient in gradients.items()}
        else:
            kind: Literal["l2", "random"] = "l2" if self.importance == "magnitude" else "random"
            scores = importance_of(subject, context, units, kind, self.calibration_examples)
        return normalized(scores) if self.normalize else scores


def _row(group: Units, alive: Tensor, scores: Tensor) -> dict[str, str | int | float]:
    kept = float(scores.cpu()[alive].sum() / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny))
    return {
        "name": group.name,
        "heads before": group.count * group.per_unit,
        "heads after": len(alive) * group.per_unit,
        "importance kept (%)": 100 * kept,
    }
