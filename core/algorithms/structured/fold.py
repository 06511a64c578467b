"""Masks folded into the weights, and what they switched off cut out: a plain, smaller model that computes the same."""

import torch
from torch import Tensor, nn

from core.algorithms.structured.stream import beginning
from core.algorithms.structured.structure import Masks, Structure
from core.algorithms.structured.units import Units, keep_
from core.models.block_names import BlockNames
from core.nn.attention.base import Attention
from core.subject import Subject


@torch.no_grad()
def fold_(subject: Subject, structure: Structure, masks: Masks) -> list[dict[str, str | int]]:
    """Leave a model without masks that computes what the masked one did; a row for every part of it.

    An attention or FFN that is switched off stays as layers without any inner width, whose bias is 0; an attention
    of transformers keeps one head, which gives nothing.
    """
    model = subject.model
    for index, block in enumerate(structure.blocks):
        _fold_layer(model, block.o, structure.heads[index], masks.heads[index], masks.attention_layers[index])
        _fold_layer(model, block.down, structure.feeds[index], masks.feeds[index], masks.feed_layers[index])
    if masks.stream is not None:
        written = [name for block in structure.blocks for name in _written_by(model, block)]
        for parameter, dim in [*((name, 0) for name in written), *((p.parameter, p.dim) for p in beginning(model))]:
            _multiply(model.get_parameter(parameter), dim, masks.stream)
    return _cut(subject, structure, masks)


def _cut(subject: Subject, structure: Structure, masks: Masks) -> list[dict[str, str | int]]:
    rows = []
    for index, block in enumerate(structure.blocks):
        heads, feeds = structure.heads[index], structure.feeds[index]
        alive = _alive(masks.heads[index], masks.attention_layers[index])
        if not len(alive) and heads.count and not _works_without_heads(subject.model, block):
            alive = torch.zeros(1, dtype=torch.long, device=alive.device)  # its output columns are 0
        rows.append(_kept(subject, heads, alive))
        rows.append(_kept(subject, feeds, _alive(masks.feeds[index], masks.feed_layers[index])))
    if structure.stream is not None and masks.stream is not None:
        rows.append(_kept(subject, structure.stream, masks.stream.nonzero().flatten()))
    return rows


def _alive(units: Tensor, layer: Tensor) -> Tensor:
    return (units * layer).nonzero().flatten()


def _kept(subject: Subject, units: Units, alive: Tensor) -> dict[str, str | int]:
    if len(alive) < units.count:
        keep_(subject, units, alive)
    before, after = units.count * units.per_unit, len(alive) * units.per_unit
    return {"name": units.name, "kind": units.kind, "before": before, "after": after}


def _works_without_heads(model: nn.Module, block: BlockNames) -> bool:
    """Those of transformers do not: OPT divides by their number, an empty cache has seen nothing, kernels want some."""
    return isinstance(model.get_submodule(block.attention), Attention)


def _fold_layer(model: nn.Module, name: str, units: Units, factors: Tensor, layer: Tensor) -> None:
    linear = model.get_submodule(name)
    if units.count:
        features = factors.repeat_interleave(units.width)
        _multiply(linear.get_parameter("weight"), 1, features)
    for parameter in linear.parameters():
        parameter.mul_(layer)


def _written_by(model: nn.Module, block: BlockNames) -> list[str]:
    linears = [(name, model.get_submodule(name)) for name in (block.o, block.down)]
    return [f"{name}.{own}" for name, linear in linears for own, _ in linear.named_parameters()]


def _multiply(parameter: Tensor, dim: int, factors: Tensor) -> None:
    shape = [1] * parameter.dim()
    shape[dim] = -1
    parameter.mul_(factors.view(shape).to(parameter.dtype))
