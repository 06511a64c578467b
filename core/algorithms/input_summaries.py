"""What calibration shows of a layer's inputs as a whole: their range and their size."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.context import Context
from core.subject import Subject
from core.tasks.base import logits_of


@dataclass
class InputSummary:
    """What calibration showed of a layer's inputs."""

    lowest: float = torch.inf
    highest: float = -torch.inf
    magnitude: float = 0.0  # sum of |x|
    squares: float = 0.0  # sum of x^2
    count: int = 0

    def add(self, x: Tensor) -> None:
        """Take in further inputs of any shape."""
        if not x.numel():
            return
        x = x.detach().float()
        self.lowest, self.highest = min(self.lowest, float(x.min())), max(self.highest, float(x.max()))
        self.magnitude += float(x.abs().sum(dtype=torch.float64))
        self.squares += float(x.square().sum(dtype=torch.float64))
        self.count += x.numel()

    @property
    def mean_magnitude(self) -> float:
        """mean|x|; 1 of a layer that nothing reached, or zeros only."""
        return self.magnitude / self.count if self.magnitude else 1.0

    @property
    def root_mean_square(self) -> float:
        """The same of sqrt(mean x^2)."""
        return (self.squares / self.count) ** 0.5 if self.squares else 1.0


def summarize_inputs(subject: Subject, context: Context, names: Iterable[str], samples: int) -> dict[str, InputSummary]:
    """What the layers read on `samples` calibration examples, before they round it."""
    found = {name: InputSummary() for name in names}
    with _in_evaluation(subject.model), _watched(subject.model, found), torch.no_grad():
        for batch in context.calibration(samples):
            logits_of(subject.model, batch)
    return found


@contextmanager
def _watched(model: nn.Module, found: Mapping[str, InputSummary]) -> Iterator[None]:
    def watch(summary: InputSummary) -> Any:
        return lambda layer, arguments: summary.add(arguments[0])

    handles = [
        model.get_submodule(name).register_forward_pre_hook(watch(found[name]), prepend=True)  # before any rounding
        for name in found
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
