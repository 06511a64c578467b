"""What the pruning of coupled units shares: settings, the choice of units, and the report."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.algorithms.structured.importance import Importance, importance_of
from core.algorithms.structured.selection import best, global_counts, layer_counts
from core.algorithms.structured.units import Units, keep_
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.tasks.base import require_loss
from core.technique import INTEGER_CODES, LOW_RANK, NM_PATTERN, ROTATED_INPUTS, OneShot


class CoupledPruning(OneShot):
    """Base: units of some kinds are scored together and the least important ones cut out."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2305.11627"
    refuses = {
        INTEGER_CODES: "Packed layers cannot be pruned: put this step before the one that quantizes.",
        LOW_RANK: "Factored layers cannot be pruned: put this step before the one that factors.",
        ROTATED_INPUTS: "Layers that rotate their inputs cannot be pruned: put this step before rotation.",
        NM_PATTERN: "Removing inputs shifts the groups of N:M: put the step that prunes N:M after this one.",
    }

    pruning_ratio: float = Field(0.25, gt=0, lt=1, description="share of the units to remove")
    importance: Importance = Field(
        "first_order",
        description="|g w|; mixed: with curvature; l2: norm of the weights; taylor: squared gradient of a gate; random",
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank units within each layer, or in the whole model"
    )
    round_to: int = Field(
        8, ge=1, le=1024, description="round kept widths to multiples of this, which kernels run faster"
    )
    skip_first: int = Field(0, ge=0, le=1000, description="number of first blocks to keep whole")
    skip_last: int = Field(0, ge=0, le=1000, description="number of last blocks to keep whole")
    calibration_examples: int = Field(
        64, ge=1, le=100_000, description="number of calibration examples (windows for text)"
    )

    def label(self) -> str:
        """The share, and what is not the default."""
        importance = "" if self.importance == "first_order" else f" {self.importance}"
        return f"{self.pruning_ratio:.0%}{importance}" + (" global" if self.scope == "global" else "")

    def units(self, subject: Subject) -> list[Units]:
        """What may be cut out, block after block; raises SpecError if the model has none of it."""
        raise NotImplementedError(type(self).__name__)

    def ratio(self, kind: str) -> float:
        """Share of the units of this kind that is cut out."""
        return self.pruning_ratio

    def check(self, subject: Subject) -> None:
        """There are units, in some layer fewer of them would stay, and there is a loss if gradients are asked for."""
        if self.importance not in ("l2", "random"):
            require_loss(subject.task)
        units = self.units(subject)
        if not units:
            skipped = {"skip_first": self.skip_first, "skip_last": self.skip_last}
            field, value = max(skipped.items(), key=lambda item: item[1])
            raise SpecError.of(field, value, "leaves no block to prune", "Choose a smaller one.")
        if self.scope == "layer" and all(self._n_kept(group) == group.count for group in units):
            widths = sorted({group.count for group in units})
            message = f"removes nothing from widths of {', '.join(map(str, widths))} rounded to {self.round_to}"
            raise SpecError.of(
                "pruning_ratio", self.pruning_ratio, message, "Choose a larger one, or a finer round_to."
            )

    def apply(self, subject: Subject, context: Context) -> None:
        """Score, choose and cut."""
        self.check(subject)
        units = self.units(subject)
        context.record.progress(0.0, "importances")
        scores = importance_of(subject, context, units, self.importance, self.calibration_examples)
        rows = []
        for index, (group, n_kept) in enumerate(zip(units, self._counts(units, scores), strict=True)):
            context.record.progress(0.5 + 0.5 * index / len(units), group.name)
            kept = best(scores[group.gate], n_kept)
            if n_kept < group.count:
                keep_(subject, group, kept)
            rows.append(_row(group, kept, scores[group.gate]))
        subject.details["layers"] = rows

    def _counts(self, units: list[Units], scores: dict[str, Tensor]) -> list[int]:
        """How many of each layer's units stay; units compete only with those of their kind."""
        found: dict[str, int] = {}
        for kind in dict.fromkeys(group.kind for group in units):
            own = {group.gate: scores[group.gate] for group in units if group.kind == kind}
            if self.scope == "layer":
                found |= layer_counts(own, self.ratio(kind), self._multiple(kind))
            else:
                total = sum(map(len, own.values()))
                found |= global_counts(own, total - round(self.ratio(kind) * total), self._multiple(kind))
        return [found[group.gate] for group in units]

    def _n_kept(self, group: Units) -> int:
        return layer_counts({"": torch.empty(group.count)}, self.ratio(group.kind), self._multiple(group.kind))[""]

    def _multiple(self, kind: str) -> int:
        return 1 if kind == "heads" else self.round_to

    @property
    def pruned_blocks(self) -> slice:
        """Which of the blocks are not left whole."""
        return slice(self.skip_first, -self.skip_last or None)


def _row(group: Units, kept: Tensor, scores: Tensor) -> dict[str, str | int | float]:
    share = float(scores[kept].sum() / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny))
    return {
        "name": group.name,
        "kind": group.kind,
        "before": group.count * group.per_unit,
        "after": len(kept) * group.per_unit,
        "importance kept (%)": 100 * share,
    }
