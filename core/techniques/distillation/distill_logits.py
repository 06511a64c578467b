"""Logit distillation: train on the teacher's softened logits in addition to the labels.

Paper: https://arxiv.org/abs/1503.02531. The loss is (1 - alpha) CE + alpha T^2 KL(teacher || student), the mean
over examples, over tokens for language models; padding is left out.
"""

from collections.abc import Mapping

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from core.algorithms.distillation import Teacher, check_answers, counted_positions, distillation_loss, teacher_field
from core.context import Context
from core.families import Family
from core.spec.model import ModelSpec
from core.subject import Subject
from core.tasks.base import logits_of, require_predictions
from core.technique import Losses, TrainingMethod


class DistillLogits(TrainingMethod):
    """Train on a teacher's softened logits in addition to the labels."""

    family = Family.DISTILLATION
    paper = "https://arxiv.org/abs/1503.02531"
    compresses = False

    teacher: Teacher = teacher_field()
    temperature: float = Field(2.0, gt=0, le=100, description="temperature for both distributions; usually 1 to 4")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher's loss; the labels' loss gets the rest")

    _teacher: nn.Module = PrivateAttr()

    def label(self) -> str:
        """The teacher and the temperature."""
        return f"from {ModelSpec.model_validate(self.teacher).source} T {self.temperature:g}"

    def check(self, subject: Subject) -> None:
        """The task has predictions to imitate."""
        require_predictions(subject.task, "teacher")

    def begin(self, subject: Subject, context: Context) -> None:
        """Load the teacher."""
        self._teacher = context.resolve(ModelSpec.model_validate(self.teacher)).eval().requires_grad_(False)

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """The teacher's term; the labels keep 1 - alpha."""
        with torch.no_grad():
            expected = logits_of(self._teacher, dict(batch))
        check_answers(self.teacher, expected, logits)
        term = distillation_loss(logits, expected, self.temperature, counted_positions(batch, logits))
        return Losses({"distillation": self.alpha * term}, task_weight=1 - self.alpha)

    def end(self, subject: Subject) -> None:
        """Let go of the teacher."""
        del self._teacher
