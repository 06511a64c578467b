"""A block of a model during calibration, with statistics of what its layers read."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core.calibration.calls import Calls, unpadded
from core.calibration.coverage import Coverage, LayerInputs
from core.calibration.hidden_states import Arguments, HiddenStates, without_cache
from core.calibration.inputs import input_rows
from core.calibration.order import WalkPart
from core.calibration.statistics import Hessian, InputNorms, OfExperts, Statistic
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.tasks.base import logits_of

Batch = dict[str, Tensor]


class Reports(Protocol):
    """The part of a run's record that calibration reports to."""

    def progress(self, fraction: float, text: str) -> None: ...

    def event(self, level: str, message: str) -> None: ...


class WalkPlace:
    """Reports the progress of the walk, at which a run may be cancelled."""

    def __init__(self, record: Reports, index: int, parts: int, name: str):
        self._record, self._index, self._parts, self._name = record, index, parts, name
        self.warn = partial(record.event, "warning")

    def report(self, done: float = 0.0) -> None:
        self._record.progress((self._index + done) / self._parts, self._name)


class CalibrationBlock:
    """A block of a model, or where none are known a group of layers, and its inputs from the calibration data."""

    def __init__(
        self,
        model: nn.Module,
        part: WalkPart,
        batches: Sequence[Batch],
        place: WalkPlace,
        hidden: HiddenStates | None = None,
        targets: Sequence[Tensor] | None = None,
        coverage: Coverage | None = None,
    ):
        self.name = part.name
        self.groups = part.groups
        self.batches = batches
        self.targets = targets  # of a block: its outputs [B, T, d] before any change to the model, on the host
        self.warn, self.report = place.warn, place.report
        self._model, self._place, self._hidden = model, place, hidden
        self._coverage = coverage or Coverage()

    @property
    def is_block(self) -> bool:
        """False: a group of layers that share their input, outside of blocks."""
        return self._hidden is not None

    @property
    def module(self) -> nn.Module:
        """The block, or outside of blocks the whole model."""
        return self._model.get_submodule(self.name) if self.is_block else self._model

    def layer(self, name: str) -> nn.Module:
        """A layer by its full name."""
        return self._model.get_submodule(name)

    def call(self, index: int, *, original: bool = False) -> Arguments:
        """What the block is called with for a batch; `original`: what the unchanged blocks before it give."""
        assert self._hidden is not None, "a layer outside of blocks has no call of its own"
        return self._hidden.call(self.name, index, original=original)

    def gradient(self, index: int, loss: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        """The gradient of a loss of logits and batch by the unchanged block's output [B, T, d]."""
        assert self._hidden is not None, "a layer outside of blocks has no gradient here"
        assert self.targets is not None, "the walk was not asked for targets"
        batch = self.batches[index]
        return self._hidden.gradient(self.name, self.targets[index], lambda model: loss(logits_of(model, batch), batch))

    def execute(self, index: int) -> Any:
        """Call the block, as it is now, or outside of blocks the whole model, with a batch."""
        return _whole(self._model, self.batches[index]) if self._hidden is None else self._hidden.run(self.name, index)

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
        for index in range(len(self.batches)):
            self._place.report()
            yield self.execute(index)

    def calls(self, modules: Collection[str]) -> dict[str, Calls]:
        """What each of these modules is called with, for each calibration batch. They are executed as they are now."""
        found = {name: Calls(self._model.get_submodule(name)) for name in modules}
        masks: list[Tensor | None] = [None]
        handles = [
            self._model.get_submodule(name).register_forward_pre_hook(calls.recorder(masks), with_kwargs=True)
            for name, calls in found.items()
        ]
        try:
            with without_cache(self._model):
                for index, batch in enumerate(self.batches):
                    self._place.report()
                    masks[0] = batch.get("attention_mask")
                    self.execute(index)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _collect(self, groups: list[list[str]], make: Callable[[], Statistic]) -> dict[str, Statistic | OfExperts]:
        layers = {group[0]: self._model.get_submodule(group[0]) for group in groups}
        collected = {
            name: OfExperts(make, layer) if isinstance(layer, (ExpertLinear, PackedExpertLinear)) else make()
            for name, layer in layers.items()
        }
        seen: list[Tensor | None] = [None]  # which tokens of the current batch are not padding
        watched = {group[0]: self._coverage.watch(group, _n_experts(layers[group[0]])) for group in groups}
        handles = [
            layers[name].register_forward_pre_hook(_adder(statistic, seen, watched[name]))
            for name, statistic in collected.items()
        ]
        try:
            for index, batch in enumerate(self.batches):
                self._place.report()
                seen[0] = batch.get("attention_mask")
                self.execute(index)
        finally:
            for handle in handles:
                handle.remove()
        return collected


@torch.no_grad()
def _whole(model: nn.Module, batch: Batch) -> Tensor:
    return logits_of(model, batch)


def _n_experts(layer: nn.Module) -> int:
    return layer.experts if isinstance(layer, (ExpertLinear, PackedExpertLinear)) else 0


def _adder(statistic: Statistic | OfExperts, seen: list[Tensor | None], watched: LayerInputs | None) -> Any:
    def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(statistic, OfExperts):
            statistic.add(*args)  # routers send them no padding
            if watched is not None:
                watched.add(*args)
            return
        rows = input_rows(layer, args[0])
        if not isinstance(layer, nn.Conv2d) and seen[0] is not None:
            rows = unpadded(rows, seen[0])
        statistic.add(rows)
        if watched is not None:
            watched.add(rows)

    return hook
