"""Sequential calibration: part after part of a model on the outputs of the parts before, as they have been changed.

Paper: https://arxiv.org/abs/2210.17323, section 4 (GPTQ goes block by block, quantized blocks giving the inputs
of the next; SparseGPT and Wanda prune so). Memory holds the hidden states between two blocks, never those of the
whole model.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.calibration.coverage import Coverage, LayerInputs
from core.calibration.hidden_states import HiddenStates, without_cache
from core.calibration.inputs import input_rows
from core.calibration.order import WalkPart, find_order
from core.calibration.statistics import Hessian, InputNorms, OfExperts, Statistic
from core.nn.experts.linear import ExpertLinear
from core.tasks.base import inputs, logits_of

MAX_TOKENS = 8192  # of a batch: bounds what a block's inner activations take
Batch = dict[str, Tensor]


class Reports(Protocol):
    """The part of a run's record that calibration reports to."""

    def progress(self, fraction: float, text: str) -> None: ...

    def event(self, level: str, message: str) -> None: ...


class _Place:
    """Reports the progress of the walk, at which a run may be cancelled."""

    def __init__(self, record: Reports, fraction: float, name: str):
        self._record, self._fraction, self._name = record, fraction, name
        self.warn = partial(record.event, "warning")

    def report(self) -> None:
        self._record.progress(self._fraction, self._name)


class CalibrationBlock:
    """A block of a model, or where none are known a group of layers, and its inputs from the calibration data."""

    def __init__(
        self,
        model: nn.Module,
        part: WalkPart,
        batches: Sequence[Batch],
        run: Callable[[int], Any],
        place: _Place,
        coverage: Coverage | None = None,
    ):
        self.name = part.name
        self.groups = part.groups
        self._model, self._batches, self._run, self._place = model, batches, run, place
        self._coverage = coverage or Coverage()

    def input_norms(self) -> Iterator[tuple[list[str], Tensor]]:
        """For each group of layers with one input: their full names, and the norm of each input [groups, d]."""
        for names, statistic in self.statistics(InputNorms):
            yield names, statistic.value

    def hessians(self, *, sequential: bool = False) -> Iterator[tuple[list[str], Iterator[Tensor]]]:
        """For each group of layers with one input: their full names, and the Hessian [d, d] of each of their matrices.

        Those of experts are made one at a time, as they are asked for: all of them would take as much again as the
        sums that they are made of.
        """
        for names, statistic in self.statistics(Hessian, sequential=sequential):
            yield names, statistic.each() if isinstance(statistic, OfExperts) else iter(statistic.value)

    def statistics(
        self, make: Callable[[], Statistic], *, sequential: bool = False
    ) -> Iterator[tuple[list[str], Statistic | OfExperts]]:
        """For each group of layers with one input: their full names, and a statistic of the vectors that enter.

        Groups come in the order of execution. `sequential` looks at a group's inputs only when it is its turn, so
        that changes to the groups before it are in them; otherwise all are taken in one pass over the block
        as it came. Layers that no calibration example reaches are left out, with a warning in the log. Experts have
        a statistic each, and a warning tells of those that no token reached.
        """
        passes = [[group] for group in self.groups] if sequential else [self.groups]
        for groups in passes:
            collected = self._collect(groups, make)
            for group in groups:
                statistic = collected.pop(group[0])
                if not statistic.count:
                    self._place.warn(f"no calibration example reaches {', '.join(group)}: left unchanged")
                    continue
                if isinstance(statistic, OfExperts) and statistic.unreached:
                    idle = ", ".join(map(str, statistic.unreached))
                    message = f"no calibration token reaches experts {idle} of {', '.join(group)}"
                    self._place.warn(f"{message}: their inputs are weighted equally")
                yield group, statistic

    def outputs(self) -> Iterator[Any]:
        """The block's current output for each calibration batch: hidden states, or the model's logits."""
        for index in range(len(self._batches)):
            self._place.report()
            yield self._run(index)

    def _collect(self, groups: list[list[str]], make: Callable[[], Statistic]) -> dict[str, Statistic | OfExperts]:
        layers = {group[0]: self._model.get_submodule(group[0]) for group in groups}
        collected = {
            name: OfExperts(make, layer) if isinstance(layer, ExpertLinear) else make()
            for name, layer in layers.items()
        }
        seen: list[Tensor | None] = [None]  # which tokens of the current batch are not padding
        watched = {group[0]: self._coverage.watch(group, _n_experts(layers[group[0]])) for group in groups}
        handles = [
            layers[name].register_forward_pre_hook(_adder(statistic, seen, watched[name]))
            for name, statistic in collected.items()
        ]
        try:
            for index, batch in enumerate(self._batches):
                self._place.report()
                seen[0] = batch.get("attention_mask")
                self._run(index)
        finally:
            for handle in handles:
                handle.remove()
        return collected


def walk(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Collection[str],
    record: Reports,
    device: torch.device,
    coverage: Coverage | None = None,
) -> Iterator[CalibrationBlock]:
    """The model's blocks in the order of execution, with those of `layers` (full names) that each holds.

    `coverage` takes note of what the layers see. What is done to a block before the next one is asked for is in the
    next one's inputs. Layers outside of blocks,
    and those of models whose blocks are not known, are walked group by group, with the whole model's forward pass
    as far as their inputs.
    """
    batches = [piece for batch in batches for piece in _pieces(inputs(batch))]
    was_training = model.training
    model.eval()
    try:
        with without_cache(model):
            order = find_order(model, {key: value[:1] for key, value in batches[0].items()}, layers)
        last = max((i for i, part in enumerate(order.parts) if part.is_block), default=-1)
        hidden: HiddenStates | None = None
        for index, part in enumerate(order.parts):
            place = _Place(record, index / len(order.parts), part.name)
            place.report()
            if not part.is_block:
                yield CalibrationBlock(model, part, batches, lambda i: _whole(model, batches[i]), place, coverage)
                continue
            hidden = hidden or HiddenStates(model, batches, order.extras, device)
            if part.groups:
                yield CalibrationBlock(model, part, batches, _runner(hidden, part.name), place, coverage)
            for i in range(len(batches) if index < last else 0):
                place.report()
                hidden.advance(part.name, i)
    finally:
        model.train(was_training)


def _runner(hidden: HiddenStates, name: str) -> Callable[[int], Tensor]:
    return lambda index: hidden.run(name, index)


@torch.no_grad()
def _whole(model: nn.Module, batch: Batch) -> Tensor:
    return logits_of(model, batch)


def _pieces(batch: Batch) -> Iterator[Batch]:
    """Batches of at most MAX_TOKENS tokens each."""
    tokens = batch.get("input_ids")
    n_examples = len(next(iter(batch.values())))
    size = n_examples if tokens is None else max(1, MAX_TOKENS // tokens[0].numel())
    for start in range(0, n_examples, size):
        yield {key: value[start : start + size] for key, value in batch.items()}


def _n_experts(layer: nn.Module) -> int:
    return layer.experts if isinstance(layer, ExpertLinear) else 0


def _adder(statistic: Statistic | OfExperts, seen: list[Tensor | None], watched: LayerInputs | None) -> Any:
    def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(statistic, OfExperts):
            statistic.add(*args)  # routers send them no padding
            if watched is not None:
                watched.add(*args)
            return
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        rows = input_rows(layer, args[0])
        if isinstance(layer, nn.Linear) and seen[0] is not None:
            rows = _unpadded(rows, seen[0])
        statistic.add(rows)
        if watched is not None:
            watched.add(rows)

    return hook


def _unpadded(rows: Tensor, attention_mask: Tensor) -> Tensor:
    """Of vectors [1, B * T', d] those at tokens that attention_mask [B, T], or [B / 2, 2, T], is not 0 at.

    T' may be more than T: tokens that the model itself put first. Where the vectors are not those of tokens (a pooled
    one an example), all are taken.
    """
    attention_mask = attention_mask.flatten(0, -2)  # a pair's texts are two
    n_examples, length = attention_mask.shape
    added = rows.shape[1] // n_examples - length
    if added < 0 or rows.shape[1] % n_examples:
        return rows
    return rows[:, F.pad(attention_mask.bool(), (added, 0), value=True).flatten()]
