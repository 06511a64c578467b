"""Logit distillation: learn the teacher's softened answers beside the labels.

Paper: https://arxiv.org/abs/1503.02531. The loss is (1 - alpha) CE + alpha T^2 KL(teacher || student), the mean
over examples, over tokens for language models; padding is left out.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor, nn

from core.context import Context
from core.distillation import counted_positions, distillation_loss
from core.errors import SpecError
from core.families import Family
from core.spec import ModelSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.base import Losses, TrainingMethod


class DistillLogits(TrainingMethod):
    """Learn from a teacher's softened logits, beside the labels."""

    family = Family.DISTILLATION
    paper = "https://arxiv.org/abs/1503.02531"
    compresses = False

    teacher: str | dict[str, Any] = Field(
        description="model reference: stage:<n>, run:<id>, hf:<repo or folder>, or a mapping with a recipe",
        json_schema_extra={"role": "model"},
    )
    temperature: float = Field(2.0, gt=0, le=100, description="softens both distributions; 1 to 4 is usual")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of the teacher; the labels have the rest")

    _teacher: nn.Module = PrivateAttr()

    @field_validator("teacher")
    @classmethod
    def _is_reference(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        source = ModelSpec.model_validate(value).source
        if ":" not in source:
            raise ValueError("is no model reference: write stage:<n>, run:<id>, hf:<repo or folder> or builtin:<name>")
        return value

    def label(self) -> str:
        """The teacher and the temperature."""
        return f"from {ModelSpec.model_validate(self.teacher).source} T {self.temperature:g}"

    def begin(self, subject: Subject, context: Context) -> None:
        """Load the teacher."""
        self._teacher = context.resolve(ModelSpec.model_validate(self.teacher)).eval().requires_grad_(False)

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """The teacher's term; the labels keep 1 - alpha."""
        with torch.no_grad():
            expected = logits_of(self._teacher, dict(batch))
        if expected.shape != logits.shape:
            message = f"answers with {list(expected.shape)}, the student with {list(logits.shape)}"
            remedy = "Choose a teacher of the same task, tokenizer and classes."
            raise SpecError.of("teacher", self.teacher, message, remedy)
        term = distillation_loss(logits, expected, self.temperature, counted_positions(batch, logits))
        return Losses({"distillation": self.alpha * term}, task_weight=1 - self.alpha)

    def end(self, subject: Subject) -> None:
        """Let go of the teacher."""
        del self._teacher
