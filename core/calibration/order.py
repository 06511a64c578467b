"""In which order a model executes its layers, which of them share an input, and whether its blocks are a chain."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.calibration.inputs import geometry
from core.models.anatomy import anatomy
from core.tasks.base import logits_of


@dataclass
class WalkPart:
    """Layers that are changed between one look at their inputs and the next part's."""

    name: str  # of the block, or of its first layer
    is_block: bool
    groups: list[list[str]]  # in the order of execution; the layers of a group share their input


@dataclass
class Order:
    """The parts of a model in the order of execution."""

    parts: list[WalkPart]
    extras: dict[str, tuple[Any, ...] | None] = field(default_factory=dict)
    """Additional outputs of blocks besides hidden states, in the order of execution; None: there are none."""


@dataclass
class _Seen:
    """What one forward pass showed. Inputs are kept alive, so that an id stays one tensor's."""

    calls: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # layer -> id and version of each input
    alive: list[Tensor] = field(default_factory=list)
    block_inputs: dict[str, list[Tensor | None]] = field(default_factory=dict)
    block_outputs: dict[str, list[Any]] = field(default_factory=dict)


@torch.no_grad()
def find_order(model: nn.Module, batch: dict[str, Tensor], layers: Collection[str]) -> Order:
    """How `model` goes through these layers, as one forward pass on a small batch shows.

    Blocks are those of `anatomy`, if each is called once and passes its hidden states on to the next one
    unchanged; of other models every group of layers is a part of its own. Layers that the pass did not reach (an
    expert) go with their block, or come last.
    """
    blocks = anatomy(model).chain
    seen = _observe(model, batch, layers, blocks)
    extras = _extras(seen, blocks)
    if extras is None:
        blocks, extras = [], {}
    owner = {name: next((b for b in blocks if name.startswith(f"{b}.")), "") for name in layers}
    parts: dict[str, WalkPart] = {block: WalkPart(block, True, []) for block in blocks}
    groups: dict[object, list[str]] = {}
    ordered: list[WalkPart] = []
    for name in [*seen.calls, *(name for name in layers if name not in seen.calls)]:
        shape = geometry(model.get_submodule(name))
        key = (owner[name], shape, *seen.calls[name]) if name in seen.calls else name
        if key in groups:
            groups[key].append(name)
            continue
        groups[key] = [name]
        part = parts[owner[name]] if owner[name] else WalkPart(name, False, [])
        part.groups.append(groups[key])
        if part not in ordered:
            ordered.append(part)
    return Order(_with_idle_blocks(ordered, list(parts.values())), extras)


def _with_idle_blocks(ordered: list[WalkPart], blocks: list[WalkPart]) -> list[WalkPart]:
    """Blocks without a layer of interest put before the next block that has one: hidden states pass through them."""
    idle = [block for block in blocks if not block.groups]
    complete = []
    for part in ordered:
        while part.is_block and idle and blocks.index(idle[0]) < blocks.index(part):
            complete.append(idle.pop(0))
        complete.append(part)
    return complete


def _observe(model: nn.Module, batch: dict[str, Tensor], layers: Collection[str], blocks: list[str]) -> _Seen:
    seen = _Seen()
    handles = []
    for name in layers:
        handles.append(model.get_submodule(name).register_forward_pre_hook(_note_layer(seen, name)))
    for name in blocks:
        handles.append(model.get_submodule(name).register_forward_hook(_note_block(seen, name)))
    try:
        logits_of(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _note_layer(seen: _Seen, name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0]
        seen.alive.append(x)
        seen.calls.setdefault(name, []).append((id(x), x._version))  # a version more: changed in place

    return hook


def _note_block(seen: _Seen, name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.block_inputs.setdefault(name, []).append(args[0] if args else None)
        seen.block_outputs.setdefault(name, []).append(output)

    return hook


def _extras(seen: _Seen, blocks: list[str]) -> dict[str, tuple[Any, ...] | None] | None:
    """Each block's additional outputs besides hidden states; None if the blocks are not a chain."""
    extras: dict[str, tuple[Any, ...] | None] = {}
    passed: Tensor | None = None
    for name in blocks:
        given, left = seen.block_inputs.get(name, []), seen.block_outputs.get(name, [])
        if len(given) != 1 or not isinstance(given[0], Tensor):
            return None
        if passed is not None and given[0] is not passed and not torch.equal(given[0], passed):
            return None
        passed = left[0][0] if isinstance(left[0], tuple) else left[0]
        extras[name] = left[0][1:] if isinstance(left[0], tuple) else None
    return extras
