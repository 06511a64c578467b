"""Quantize the inputs of linear layers, beside their weights: block by block where scales are static."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.calibration.activations import ActivationValues
from core.calibration.statistics import OfExperts
from core.context import Context
from core.nn.experts.packed import PackedExpertLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import with_activations
from core.subject import Subject
from core.techniques.activation_settings import ActivationSettings

Seen = ActivationValues | None  # what calibration has seen of a layer's inputs; None: scales are not static


@torch.no_grad()
def quantize_inputs(
    subject: Subject,
    context: Context,
    names: Sequence[str],
    settings: ActivationSettings,
    pack: Callable[[nn.Linear], QuantLinear],
) -> None:
    """Quantize the inputs of these layers, and report on each.

    `pack` makes the integer weights of a linear layer, or of one expert's. Layers that are packed already keep theirs.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, seen in _inputs(subject, context, names, settings):
        rows[name] = _quantize(subject, name, seen, settings, pack)
        rows[name]["activation_bits"] = settings.activation_bits
    subject.details["layers"] = [rows[name] for name in names if name in rows]


def _inputs(
    subject: Subject, context: Context, names: Sequence[str], settings: ActivationSettings
) -> Iterator[tuple[str, list[Seen]]]:
    """Each layer's name, and what is known of the inputs of each of its matrices."""
    if not settings.is_static:
        for index, name in enumerate(names):
            context.record.progress(index / len(names), name)
            yield name, [None] * _n_matrices(subject.model.get_submodule(name))
        return
    for block in context.blocks(subject, settings.calibration_examples, names):
        for group, statistic in block.statistics(ActivationValues):
            for name in group:
                yield name, _values_of(statistic)


def _quantize(
    subject: Subject,
    name: str,
    seen: list[Seen],
    settings: ActivationSettings,
    pack: Callable[[nn.Linear], QuantLinear],
) -> dict[str, Any]:
    quantizers = [settings.quantizer(subject.dtype, values) for values in seen]
    layer = subject.model.get_submodule(name)
    linears = linears_of(layer)
    if linears:
        made = [with_activations(pack(linear), q) for linear, q in zip(linears, quantizers, strict=True)]
        return replace_by_packed(subject, name, made, made[0].bits)
    if isinstance(layer, PackedExpertLinear):
        experts = [part for part in layer.layers if isinstance(part, QuantLinear)]
        made = [with_activations(part, q) for part, q in zip(experts, quantizers, strict=True)]
        subject.replace(name, PackedExpertLinear.of([*made]))
        return {"name": name, "bits": made[0].bits}
    assert isinstance(layer, QuantLinear)
    subject.replace(name, with_activations(layer, quantizers[0]))
    return {"name": name, "bits": layer.bits}


def _n_matrices(layer: nn.Module) -> int:
    return len(layer.layers) if isinstance(layer, PackedExpertLinear) else max(1, len(linears_of(layer)))


def _values_of(statistic: Any) -> list[Seen]:
    """What each matrix has seen; an expert that no token reached counts as the busiest one."""
    if not isinstance(statistic, OfExperts):
        return [statistic]
    parts = [part for part in statistic.parts if isinstance(part, ActivationValues)]
    reached = max(parts, key=lambda part: part.count)
    return [part if part.count else reached for part in parts]
