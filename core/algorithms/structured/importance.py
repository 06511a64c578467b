"""What a unit matters, from its weights and their gradients: pure functions, and one that asks a model.

LLM-Pruner (https://arxiv.org/abs/2305.11627), section 3.2: an element's first-order importance is |g w|, its mixed
one |g w - w^2 E[g^2] / 2| with g^2 taken example by example; a unit's is the sum over its coupled elements. Rivals:
the units' L2 norm, the squared gradient of a gate (Taylor, https://arxiv.org/abs/1906.10771), and chance.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from core.algorithms.structured.gates import gate_gradients
from core.algorithms.structured.gradients import gradient_moments, mean_gradients
from core.algorithms.structured.units import Slice, Units, parameters
from core.context import Context
from core.subject import Subject

Importance = Literal["first_order", "mixed", "l2", "taylor", "random"]


def first_order(weight: Tensor, gradient: Tensor) -> Tensor:
    """|g w|: by how much the loss would change, were the element zero, if it were linear."""
    return (gradient * weight).abs()


def mixed(weight: Tensor, gradient: Tensor, mean_square: Tensor) -> Tensor:
    """|g w - w^2 E[g^2] / 2|: the same with curvature from the squared gradients of single examples."""
    return (gradient * weight - 0.5 * weight.square() * mean_square).abs()


def unit_sums(elements: Tensor, part: Slice) -> Tensor:
    """Sum of the elements of a parameter that belong to each unit: [count]."""
    along = elements.movedim(part.dim, 0).flatten(1) if elements.dim() > 1 else elements[:, None]
    return along.sum(dim=1).view(-1, part.width).sum(dim=1)


def summed(units: Units, elements: Mapping[str, Tensor]) -> Tensor:
    """Importance of each unit [count]: the sum over all of its elements; buffers have none."""
    parts = [unit_sums(elements[part.parameter], part) for part in units.slices if part.parameter in elements]
    return torch.stack(parts).sum(dim=0)


def importance_of(
    subject: Subject, context: Context, units: Iterable[Units], kind: Importance, n_examples: int
) -> dict[str, Tensor]:
    """Importance of every unit [count], by the units' gate layer; float32, never negative."""
    listed = list(units)
    if kind == "random":
        generator = context.generator("importance")
        return {group.gate: torch.rand(group.count, generator=generator).to(context.device) for group in listed}
    if kind == "taylor":
        gradients = gate_gradients(subject.model, subject.task, context.calibration(n_examples), listed)
        return {name: gradient.square().mean(dim=0) for name, gradient in gradients.items()}
    elements = _elements(subject, context, listed, kind, n_examples)
    scores = {group.gate: summed(group, elements) for group in listed}
    return {name: score.sqrt() for name, score in scores.items()} if kind == "l2" else scores


def _elements(
    subject: Subject, context: Context, units: list[Units], kind: Importance, n_examples: int
) -> dict[str, Tensor]:
    owned = parameters(units, subject.model)
    weights = {name: parameter.detach().float() for name, parameter in owned.items()}
    if kind == "l2":
        return {name: weight.square() for name, weight in weights.items()}
    if kind == "first_order":
        gradients = mean_gradients(subject.model, subject.task, context.calibration(n_examples), owned)
        return {name: first_order(weight, gradients[name]) for name, weight in weights.items()}
    means, squares = gradient_moments(subject.model, subject.task, context.calibration(n_examples), owned)
    return {name: mixed(weight, means[name], squares[name]) for name, weight in weights.items()}
