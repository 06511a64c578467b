"""Gradients of weights over calibration examples: their mean, and the mean of their squares example by example."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from core.algorithms.master_weights import in_float32
from core.tasks.base import Task, logits_of


def mean_gradients(
    model: nn.Module, task: Task, batches: Iterable[Mapping[str, Tensor]], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Gradient of the mean loss over all examples, by parameter; the model computes in float32 meanwhile."""
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    n_examples = 0
    with in_float32(model):
        for batch in batches:
            size = len(next(iter(batch.values())))
            for name, gradient in _gradients(model, task, batch, parameters):
                total[name] += size * gradient
            n_examples += size
    return {name: gradient / n_examples for name, gradient in total.items()}


def gradient_moments(
    model: nn.Module, task: Task, batches: Iterable[Mapping[str, Tensor]], parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean of the examples' gradients, and mean of their squares (the diagonal of the empirical Fisher matrix).

    One backward pass an example: the square of a batch's gradient would let examples cancel. As in `mean_gradients`,
    the model computes in float32.
    """
    first = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    second = {name: torch.zeros_like(total) for name, total in first.items()}
    n_examples = 0
    with in_float32(model):
        for example in _examples(batches):
            for name, gradient in _gradients(model, task, example, parameters):
                first[name] += gradient
                second[name] += gradient.square()
            n_examples += 1
    return (
        {name: total / n_examples for name, total in first.items()},
        {name: total / n_examples for name, total in second.items()},
    )


def _examples(batches: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    for batch in batches:
        for index in range(len(next(iter(batch.values())))):
            yield {key: value[index : index + 1] for key, value in batch.items()}


def _gradients(
    model: nn.Module, task: Task, batch: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[str, Tensor]]:
    loss = task.loss(logits_of(model, dict(batch)), dict(batch))
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, gradients, strict=True):
        yield name, gradient.detach()
