"""Gates: a factor on every unit, through which units are switched off and their importance is asked.

Gates are part of no model: hooks multiply them onto the input of the layer that all of a unit's work passes through.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.algorithms.master_weights import in_float32
from core.algorithms.structured.units import Units
from core.tasks.base import Task, logits_of


@contextmanager
def gated(model: nn.Module, units: Iterable[Units], factors: Callable[[Units], Tensor]) -> Iterator[None]:
    """Inside, the units' work is multiplied with `factors`: [count], or [B, count] for each example its own."""
    handles = []
    for group in units:

        def hook(module: nn.Module, args: tuple[Any, ...], group: Units = group) -> tuple[Any, ...]:
            return (_multiplied(args[0], factors(group), group, isinstance(module, nn.Conv2d)), *args[1:])

        handles.append(model.get_submodule(group.gate).register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiplied(x: Tensor, factor: Tensor, group: Units, images: bool) -> Tensor:
    """x [rows, ..., features], or [B, features, H, W], its units multiplied; rows are examples, or tokens of them."""
    by_example = factor.view(-1, 1, group.count, 1).to(x.dtype)  # [1 or B, 1, count, 1]
    n_examples = len(by_example)
    if images:
        return (x.reshape(n_examples, -1, group.count, x[0, 0].numel() * group.width) * by_example).view_as(x)
    return (x.reshape(n_examples, -1, group.count, group.width) * by_example).view_as(x)


def gate_gradients(
    model: nn.Module, task: Task, batches: Iterable[Mapping[str, Tensor]], units: Iterable[Units]
) -> dict[str, Tensor]:
    """Derivative of every example's loss by every gate, at 1: by the units' gate layer [N, count], all in float32.

    The loss of an example is what the task's mean loss would be of it alone (of a window: the mean over its tokens).
    """
    listed = list(units)
    found: dict[str, list[Tensor]] = {group.gate: [] for group in listed}
    with in_float32(model):
        for batch in batches:
            n_examples = len(next(iter(batch.values())))
            device = next(iter(batch.values())).device
            gates = {g.gate: torch.ones(n_examples, g.count, device=device, requires_grad=True) for g in listed}
            with gated(model, listed, lambda group, gates=gates: gates[group.gate]):  # type: ignore[misc]
                loss = task.loss(logits_of(model, dict(batch)), dict(batch)) * n_examples
            gradients = torch.autograd.grad(loss, list(gates.values()))
            for name, gradient in zip(gates, gradients, strict=True):
                found[name].append(gradient.detach())
    return {name: torch.cat(parts) for name, parts in found.items()}
