"""Learning from a teacher's logits: the setting that names it and the loss, which several methods share.

Paper: https://arxiv.org/abs/1503.02531 (Hinton et al., section 2).
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional as F

from core.errors import SpecError
from core.spec.model import ModelSpec
from core.tasks.windows import IGNORED


def _named(value: str | dict[str, Any]) -> str | dict[str, Any]:
    if ":" not in ModelSpec.model_validate(value).source:
        raise ValueError("is not a model reference: write stage:<n>, run:<id>, hf:<repo or folder> or builtin:<name>")
    return value


Teacher = Annotated[str | dict[str, Any], AfterValidator(_named)]


def teacher_field() -> Any:
    """The setting of a method that cannot do without a teacher."""
    words = "model reference: stage:<n>, run:<id>, hf:<repo or folder>, or a mapping with a recipe"
    return Field(description=words, json_schema_extra={"role": "model"})


def check_answers(teacher: Teacher, expected: Tensor, logits: Tensor) -> None:
    """Raise SpecError if the teacher's answers `expected` are not shaped like the student's `logits`."""
    if expected.shape != logits.shape:
        message = f"answers with {list(expected.shape)}, the student with {list(logits.shape)}"
        raise SpecError.of("teacher", teacher, message, "Choose a teacher of the same task, tokenizer and classes.")


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)): mean over the positions [...] that are `counted`.

    Logits are [..., n_classes]. T^2 keeps the gradient's size as T grows.
    """
    expected = F.log_softmax(teacher.detach()[counted].float() / temperature, dim=-1)  # [n, n_classes]
    answered = F.log_softmax(student[counted].float() / temperature, dim=-1)
    divergence = F.kl_div(answered, expected, reduction="sum", log_target=True)
    return temperature**2 * divergence / counted.sum().clamp(min=1)


def counted_positions(batch: Mapping[str, Tensor], logits: Tensor) -> Tensor:
    """True if an answer counts, shaped like the logits without their classes: not on padding."""
    counted = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    labels, attention = batch.get("labels"), batch.get("attention_mask")
    for marks in (None if labels is None else labels != IGNORED, attention):
        if marks is not None and marks.shape == counted.shape:
            counted &= marks.bool()
    return counted
