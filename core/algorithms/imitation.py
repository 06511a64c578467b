"""A teacher whose logits and blocks a student of the same shape imitates."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.algorithms.distillation import check_answers, counted_positions, distillation_loss
from core.algorithms.structured.layer_matching import outputs_of
from core.models.anatomy import anatomy
from core.tasks.base import logits_of


class Imitation:
    """The loss terms of imitating `teacher`; of its blocks those that `student` has under the same names too."""

    def __init__(self, teacher: nn.Module, student: nn.Module):
        self.teacher = teacher.eval().requires_grad_(False)
        chain = anatomy(student).chain
        self.blocks = chain if anatomy(teacher).chain == chain else []

    def terms(
        self,
        batch: Mapping[str, Tensor],
        logits: Tensor,
        own: Mapping[str, Tensor],
        logits_weight: float,
        blocks_weight: float,
        temperature: float,
    ) -> dict[str, Tensor]:
        """The weighted loss terms of a batch by name; `own` are the student's blocks' outputs, if they have a weight.

        Raises SpecError if the teacher's answers are not shaped like the student's.
        """
        names = self.blocks if blocks_weight else []
        with torch.no_grad(), outputs_of(self.teacher, names) as outputs:
            expected = logits_of(self.teacher, dict(batch))
        check_answers("teacher", expected, logits)
        divergence = distillation_loss(logits, expected, temperature, counted_positions(batch, logits))
        terms = {"distillation": logits_weight * divergence}
        if names:
            terms["blocks"] = blocks_weight * self.blocks_term(batch, own, outputs)
        return terms

    def blocks_term(
        self, batch: Mapping[str, Tensor], own: Mapping[str, Tensor], expected: Mapping[str, Tensor]
    ) -> Tensor:
        """The mean squared error of the blocks' outputs, without padding; the mean over the blocks."""
        errors = []
        for name in self.blocks:
            error = (own[name].float() - expected[name].float()).square().mean(-1)
            counted = batch.get("attention_mask")
            is_padded = counted is not None and counted.shape == error.shape
            errors.append(error[counted.bool()].mean() if is_padded and counted is not None else error.mean())
        return torch.stack(errors).mean()
