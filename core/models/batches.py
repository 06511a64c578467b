"""Batches for scoring, counting and timing a model."""

import torch
from torch import Tensor

from core.tasks.base import Task

Batch = dict[str, Tensor]


def place(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """The batch on a device, its floating-point tensors in the model's dtype."""
    return {
        key: value.to(device, dtype) if value.is_floating_point() else value.to(device) for key, value in batch.items()
    }


def timed_batch(task: Task, batch_size: int, length: int | None = None) -> Batch:
    """A model's keyword arguments, without labels: the first test examples, repeated as often as needed.

    Of pairs of texts, the first ones. Text is cut, or repeated, to `length` tokens; None keeps the task's own.
    """
    examples = task.split("test")
    batch = examples.batch(torch.arange(batch_size) % len(examples))
    single = {key: value[:, 0] if is_paired(key, value) else value for key, value in batch.items()}
    return {key: _of_length(value, length) for key, value in single.items() if key != "labels"}


def is_paired(name: str, value: Tensor) -> bool:
    """Whether an entry of a batch has two texts an example, [B, 2, T]."""
    return name in ("input_ids", "attention_mask") and value.dim() == 3


def _of_length(tokens: Tensor, length: int | None) -> Tensor:
    if length is None or tokens.dim() != 2:
        return tokens
    repeats = -(-length // tokens.shape[1])
    return tokens.repeat(1, repeats)[:, :length]
