"""Estimates of how much the loss rises when a layer's weights change, from gradients and curvature.

Near a minimum the loss rises by 1/2 ΔW^T H ΔW. The empirical Fisher information replaces H by the mean square of each
example's gradient (BRECQ, https://arxiv.org/abs/2102.05426, section 3.3). Hessian-aware quantization replaces H by its
mean diagonal entry (HAWQ-V2, https://arxiv.org/abs/1911.03852), estimated by Hutchinson's method: the mean of v^T H v
over random signs v is the trace.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.algorithms.master_weights import in_float32
from core.tasks.base import Task, logits_of
from core.tasks.windows import IGNORED


def fisher_increase(change: Tensor, fisher: Tensor, predictions: float = 1.0) -> float:
    """1/2 Σ F ΔW² of a weight's change: the estimated increase of the loss.

    `fisher` is the mean square of the gradients of single examples. An example's loss is a mean over its predictions,
    whose gradients are taken as independent: their mean square is `predictions` times as large.
    """
    return 0.5 * predictions * float((fisher * change.square()).sum(dtype=torch.float64))


def hessian_increase(change: Tensor, mean_trace: float) -> float:
    """1/2 tr(H)/n ‖ΔW‖²: the estimated increase, as if the curvature were the same along every weight.

    The mean of the trace belongs to the sum of the squared change. A negative trace is noise, and counts as zero.
    """
    return 0.5 * max(mean_trace, 0.0) * float(change.square().sum(dtype=torch.float64))


def mean_traces(
    model: nn.Module,
    task: Task,
    batches: Iterable[Mapping[str, Tensor]],
    parameters: Mapping[str, nn.Parameter],
    probes: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """Mean diagonal entry of the loss's Hessian within each parameter, by Hutchinson's method; may be negative.

    All parameters are probed at once: their signs are independent, so that products between them vanish on average.
    The model computes in float32 meanwhile.
    """
    totals = dict.fromkeys(parameters, 0.0)
    n_examples, listed = 0, list(parameters.values())
    with in_float32(model), sdpa_kernel(SDPBackend.MATH):  # the only backend whose gradient has a gradient
        for batch in batches:
            loss = task.loss(logits_of(model, dict(batch)), dict(batch))
            gradients = torch.autograd.grad(loss, listed, create_graph=True)
            size = len(next(iter(batch.values())))
            n_examples += size
            for probe in range(probes):
                signs = [_signs(parameter, generator) for parameter in listed]
                products = torch.autograd.grad(
                    gradients, listed, signs, retain_graph=probe < probes - 1, materialize_grads=True
                )
                for name, sign, product in zip(parameters, signs, products, strict=True):
                    totals[name] += size * float((sign * product).mean(dtype=torch.float64))
    return {name: value / (n_examples * probes) for name, value in totals.items()}


def predictions_per_example(batches: Iterable[Mapping[str, Tensor]]) -> float:
    """How many labels count, on average: 1 for a classifier, the predicted tokens of a window of text."""
    labels = [batch["labels"] for batch in batches]
    return sum(int((each != IGNORED).sum()) for each in labels) / sum(map(len, labels))


def _signs(parameter: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, parameter.shape, generator=generator)
    return (2 * drawn - 1).to(parameter.device, parameter.dtype)
