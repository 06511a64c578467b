"""Layers whose weights, and inputs, are rounded in the forward pass of a training, and which are packed at its end."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.context import Context
from core.models.anatomy import anatomy
from core.nn.experts.linear import ExpertLinear
from core.nn.integer_linear import IntegerLinear, scale_dtypes
from core.nn.precision import is_precise
from core.subject import Subject
from core.tasks.base import logits_of

STEP_RANGE = 64  # a learned step keeps at least this share of its first size
Pack = Callable[[str, nn.Linear, int], IntegerLinear]  # a layer's name, the layer or one expert's, which expert


class TrainedLayers:
    """The layers of a subject's main model that a method rounds; `round_` begins it, `pack` ends it."""

    def __init__(self, subject: Subject):
        self._subject = subject
        self._hooks: dict[str, Any] = {}

    def round_(self, name: str, weight: nn.Module, inputs: nn.Module | None = None) -> None:
        """Pass the weight of a layer through `weight` and what the layer reads through `inputs` from now on."""
        layer = self._subject.model.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", weight)
        if inputs is not None:
            layer.add_module("input_quantizer", inputs)
            self._hooks[name] = layer.register_forward_pre_hook(_round_input)

    def pack(self, bits: Mapping[str, int] | Mapping[str, float], pack: Pack) -> None:
        """Put what `pack` makes of each layer in its place, and report each; `bits` are nominal, by name."""
        self._subject.details["layers"] = [self._pack(name, bits[name], pack) for name in bits]

    @torch.no_grad()
    def _pack(self, name: str, bits: float, pack: Pack) -> dict[str, Any]:
        layer = self._subject.model.get_submodule(name)
        self._make_plain(name, layer)
        packed = [pack(name, linear, expert) for expert, linear in enumerate(linears_of(layer))]
        return replace_by_packed(self._subject, name, packed, bits)

    def _make_plain(self, name: str, layer: nn.Module) -> None:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        if name in self._hooks:
            self._hooks.pop(name).remove()
            del layer.input_quantizer


def _round_input(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (layer.get_submodule("input_quantizer")(arguments[0]), *arguments[1:])


def matrices_in(layer: nn.Module) -> int:
    """How many matrices a layer's weight is: one, or one an expert."""
    return layer.experts if isinstance(layer, ExpertLinear) else 1


def ends_of(model: nn.Module) -> set[str]:
    """The first and the last layer of a model: its embeddings and heads, where these are known."""
    known = anatomy(model)
    layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, ExpertLinear, nn.Conv2d))]
    return {*(known.embeddings or layers[:1]), *(known.outputs or layers[-1:])}


def step_dtype(first: Tensor, saved: torch.dtype) -> torch.dtype:
    """The dtype in which steps are stored that begin as `first`, in a model that is saved in `saved`."""
    return next((dtype for dtype in scale_dtypes(saved) if is_precise(first / STEP_RANGE, dtype)), torch.float32)


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
    """What the layers read on `samples` calibration examples, before anything is rounded."""
    found = {name: InputSummary() for name in names}
    with _in_evaluation(subject.model), _watched(subject.model, found), torch.no_grad():
        for batch in context.calibration(samples):
            logits_of(subject.model, batch)
    return found


@contextmanager
def _watched(model: nn.Module, found: Mapping[str, InputSummary]) -> Iterator[None]:
    def watch(summary: InputSummary) -> Any:
        return lambda layer, arguments: summary.add(arguments[0])

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(found[name])) for name in found]
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
