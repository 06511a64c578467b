"""Layers whose weights, and inputs, are rounded in the forward pass of a training, and which are packed at its end."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.fake_quantization import STEP_RANGE
from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.models.anatomy import anatomy
from core.nn.experts.linear import ExpertLinear
from core.nn.integer_linear import IntegerLinear, scale_dtypes
from core.nn.precision import is_precise
from core.subject import Subject
from core.technique import BLOCKS, KEPT_WEIGHTS, Update

DECIDES = frozenset({BLOCKS, KEPT_WEIGHTS})  # no other method may swap or prune layers while they are rounded
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


def one_scale_dtype(first: Tensor, saved: torch.dtype) -> torch.dtype:
    """The same of a scale that a whole matrix shares, which costs nothing in float32: else the model's own dtype."""
    return saved if is_precise(first / STEP_RANGE, saved) else torch.float32


def make_rates_relative(update: Update) -> None:
    """Make AdamW's learning rate relative to the `first_size` of the groups that have one.

    AdamW's updates do not depend on the gradient's size, so they would be as large for a step of 0.001 as for a weight.
    """
    if isinstance(update.optimizer, torch.optim.AdamW):
        for group in update.optimizer.param_groups:
            group["lr"] *= group.get("first_size", 1.0)
