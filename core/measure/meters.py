"""Which meter observes a task's scoring, and the scores that only it can give."""

from typing import TypeAlias

import torch
from torch import Tensor, nn

from core.errors import TechniqueFailure
from core.measure.embedding_fidelity import EmbeddingMeter
from core.measure.fidelity import FidelityMeter, Incomparable
from core.tasks.base import Kind, Task

Meter: TypeAlias = FidelityMeter | EmbeddingMeter


def meter_of(task: Task, reference: nn.Module, device: torch.device) -> Meter:
    """The meter of a stage's fidelity to its reference on this task."""
    kind = EmbeddingMeter if task.kind is Kind.EMBEDDINGS else FidelityMeter
    return kind(reference, device)


def compared(meter: Meter) -> dict[str, Tensor]:
    """The per-example comparison that is the score itself; raises TechniqueFailure if there is none."""
    try:
        return meter.examples()
    except Incomparable as error:
        message = f"the stage has no score: {error}. Give pairs with scores, which need no reference."
        raise TechniqueFailure(message) from error
