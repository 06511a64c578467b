"""What is reconstructed at once: a block or a layer, called with what the quantized part of the model before it gives.

Papers: https://arxiv.org/abs/2102.05426 (BRECQ: blocks, Fisher weights), https://arxiv.org/abs/2004.10568 (AdaRound:
layers, section 3.4 on asymmetric inputs). The target is what it gave in the unchanged model.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from core.calibration import CalibrationBlock
from core.calibration.block import Batch
from core.calibration.calls import find_unpadded
from core.calibration.hidden_states import Arguments, hidden_of
from core.nn.experts.linear import ExpertLinear

Weights = Mapping[str, Tensor]  # by the layer's full name
Loss = Callable[[Tensor, Batch], Tensor]


@dataclass
class Unit:
    """A module in float32 with the layers to round in it, and its calls and their targets, batch by batch."""

    name: str
    module: nn.Module
    parameters: Mapping[str, str]  # a layer's full name -> its weight's name in the module
    n_batches: int
    call: Callable[[int], Arguments]
    target: Callable[[int], Tensor]
    importance: Callable[[int, Tensor], Tensor | None]  # of the error of each output; None: all alike

    def output(self, index: int, weights: Weights) -> Tensor:
        """The output for a batch with these weights."""
        args, kwargs = tree_map_only(Tensor, _precise, self.call(index))
        swapped = {self.parameters[name]: weight for name, weight in weights.items()}
        return hidden_of(functional_call(self.module, swapped, args, kwargs))

    def error(self, index: int, weights: Weights) -> tuple[Tensor, Tensor]:
        """The weighted sum of squared errors of a batch's outputs, and the sum of the weights: two scalars."""
        target = _precise(self.target(index))
        squares = (self.output(index, weights) - target).square()
        importance = self.importance(index, target)
        if importance is None:
            return squares.sum(), torch.tensor(float(squares.numel()), device=squares.device)
        return (squares * importance).sum(), importance.expand_as(squares).sum()

    @torch.no_grad()
    def mean_error(self, weights: Weights, report: Callable[[], None]) -> float:
        """The weighted mean of the squared errors over all batches."""
        errors, total = 0.0, 0.0
        for index in range(self.n_batches):
            report()
            error, weight = self.error(index, weights)
            errors, total = errors + float(error), total + float(weight)
        return errors / total if total else 0.0

    @torch.no_grad()
    def energy(self) -> float:
        """The weighted mean of the squared targets."""
        energy, total = 0.0, 0.0
        for index in range(self.n_batches):
            target = _precise(self.target(index))
            importance = self.importance(index, target)
            importance = torch.ones_like(target) if importance is None else importance.expand_as(target)
            energy, total = energy + float((importance * target.square()).sum()), total + float(importance.sum())
        return energy / total if total else 0.0


def block_unit(block: CalibrationBlock, loss: Loss | None = None) -> Unit:
    """A whole block; with a `loss`, errors are weighted by the square of its gradient (BRECQ, equation 10)."""
    assert block.targets is not None, "the walk was not asked for targets"
    module, targets = _frozen(block.module), block.targets
    gradients = None if loss is None else _gradients(block, targets, loss)
    names = [name for group in block.groups for name in group]
    device = next(module.parameters()).device

    def importance(index: int, target: Tensor) -> Tensor | None:
        kept = _kept(block.batches[index], target)
        if gradients is None:
            return kept
        fisher = gradients[index].to(device).square()
        return fisher if kept is None else fisher * kept

    return Unit(
        block.name,
        module,
        {name: f"{name.removeprefix(block.name)[1:]}.weight" for name in names},
        len(targets),
        block.call,
        lambda index: targets[index].to(device),
        importance,
    )


def layer_units(block: CalibrationBlock) -> Iterator[Unit]:
    """The layers of a part of the walk one by one, each on what the layers before it, as they are then, give.

    Outside of blocks, and of experts (whose tokens the router may send elsewhere now), the target is what the unchanged
    layer makes of the same inputs. A layer that is never called has no batches.
    """
    original = copy.deepcopy(block.module) if block.is_block else None
    for group in block.groups:
        calls = _calls(block, block.layer(group[0]), block.execute)
        before = calls
        if original is not None and not isinstance(block.layer(group[0]), ExpertLinear):
            relative = group[0].removeprefix(block.name)[1:]
            before = _calls(block, original.get_submodule(relative), lambda i: _run(original, block, i))
        for name in group:
            yield _layer_unit(block, name, calls, before)


@dataclass(frozen=True)
class _Call:
    """A call of a layer: its arguments, on the host, and the batch."""

    args: tuple[Any, ...]
    batch: Batch


def _layer_unit(block: CalibrationBlock, name: str, calls: Sequence[_Call], before: Sequence[_Call]) -> Unit:
    module = _frozen(block.layer(name))
    device = next(module.parameters()).device

    def moved(call: _Call) -> tuple[Any, ...]:
        return tuple(a.to(device) if isinstance(a, Tensor) else a for a in call.args)

    @torch.no_grad()
    def target(index: int) -> Tensor:
        output: Tensor = module(*tree_map_only(Tensor, _precise, moved(before[index])))
        return output

    def importance(index: int, target: Tensor) -> Tensor | None:
        return None if isinstance(module, ExpertLinear) else _kept(calls[index].batch, target)

    return Unit(name, module, {name: "weight"}, len(calls), lambda index: (moved(calls[index]), {}), target, importance)


@torch.no_grad()
def _calls(block: CalibrationBlock, layer: nn.Module, execute: Callable[[int], Any]) -> list[_Call]:
    """Every call of a layer while the calibration data is executed."""
    found: list[_Call] = []
    index = 0

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        hosted = tuple(a.to("cpu", copy=True) if isinstance(a, Tensor) else a for a in args)
        found.append(_Call(hosted, block.batches[index]))

    handle = layer.register_forward_pre_hook(note)
    try:
        for index in range(len(block.batches)):
            block.report()
            execute(index)
    finally:
        handle.remove()
    return found


def _run(module: nn.Module, block: CalibrationBlock, index: int) -> None:
    args, kwargs = block.call(index, original=True)
    module(*args, **kwargs)


def _frozen(module: nn.Module) -> nn.Module:
    """A copy in float32 of which nothing is learned."""
    return copy.deepcopy(module).float().requires_grad_(False)


def _kept(batch: Batch, output: Tensor) -> Tensor | None:
    """1 for outputs [B, T, d] at tokens, 0 at padding: [B, T, 1]; None: there is no padding."""
    mask = batch.get("attention_mask")
    kept = None if mask is None or output.dim() != 3 else find_unpadded(output.shape[0] * output.shape[1], mask)
    return None if kept is None else kept.view(*output.shape[:2], 1).float()


def _gradients(block: CalibrationBlock, targets: Sequence[Tensor], loss: Loss) -> list[Tensor]:
    """The gradients of the loss by the block's outputs, with a mean square of 1: float32, on the host."""

    def per_token(logits: Tensor, batch: Batch) -> Tensor:
        return loss(logits, batch) * (len(logits) * targets[0].shape[1])  # a mean's gradient may underflow in 16 bits

    gradients = []
    for index in range(len(targets)):
        block.report()
        gradients.append(block.gradient(index, per_token).float().cpu())
    mean = sum(float(g.square().sum()) for g in gradients) / sum(g.numel() for g in gradients)
    return [g / mean**0.5 for g in gradients] if mean > 0 else [torch.ones_like(g) for g in gradients]


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x
