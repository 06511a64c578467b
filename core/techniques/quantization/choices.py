"""Choices of formats, applied to a model: packed layers, and how a mixed choice does against its baselines."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from core.algorithms.packed_layers import layer_report
from core.algorithms.quantization_grids import QuantizationScheme
from core.allocation.choice import Choice
from core.allocation.table import LayerFormat, SensitivityTable
from core.allocation.units import UNITS
from core.subject import Subject
from core.techniques.quantization.formats import PackedLayer, layer_of, pack_layer, scheme_of

MIXED = "mixed"
Packed = dict[str, PackedLayer]


class Verdict(NamedTuple):
    """Whether a mixed choice beats its baselines, and a sentence that says so."""

    wins: bool
    text: str


def chosen_formats(table: SensitivityTable, choice: Choice) -> Iterator[tuple[str, LayerFormat]]:
    """Full name and format of each layer."""
    for group, index in zip(table.groups, choice, strict=True):
        for name in group.layers:
            yield name, table.formats[index]


def pack_choice(subject: Subject, table: SensitivityTable, choice: Choice) -> Packed:
    """The layers that a choice changes, rounded to nearest."""
    chosen = chosen_formats(table, choice)
    return {name: pack_layer(subject, name, each, table.rounding) for name, each in chosen if not each.dense}


def schemes_of(table: SensitivityTable, choice: Choice) -> dict[str, QuantizationScheme]:
    """How the layers whose weights alone are quantized are rounded."""
    chosen = chosen_formats(table, choice)
    weight_only = [(name, each) for name, each in chosen if not each.dense and each.activation_bits is None]
    return {name: scheme_of(each, table.rounding) for name, each in weight_only}


@torch.no_grad()
def replace_layer(subject: Subject, name: str, format: LayerFormat, packed: PackedLayer | None) -> dict[str, Any]:
    """Swap in a packed layer (None: leave it), and return its row of the report."""
    weight = layer_of(subject.model, name).weight.detach()
    if packed is not None:
        subject.replace(name, packed.module)
    return layer_report(name, weight, weight.float() if packed is None else packed.weight, format.bits)


def choice_row(name: str, table: SensitivityTable, choice: Choice, kl: float) -> dict[str, Any]:
    """A choice's name, its format if that is one, predicted and measured loss, and costs in all units."""
    used = {each.name for _, each in chosen_formats(table, choice)}
    return {
        "name": name,
        "format": used.pop() if len(used) == 1 else "",
        "predicted": table.predicted(choice),
        "kl": kl if kl == kl and kl != float("inf") else None,
        **{unit: table.cost(choice, unit) for unit in UNITS},
    }


def verdict_on(rows: list[dict[str, Any]], choices: dict[str, Choice]) -> Verdict:
    """How the mixed choice does against the baselines by what was measured on calibration data."""
    mixed = next(row for row in rows if row["name"] == MIXED)
    others = [row for row in rows if row is not mixed and row["kl"] is not None]
    if not others:
        return Verdict(True, "No uniform choice fits the budget, so the mixed choice is compared with nothing.")
    best = min(others, key=lambda row: row["kl"])
    name = f"{best['name']} {best['format']}".strip()
    if (choices[best["name"]] == choices[MIXED]).all():
        return Verdict(False, f"The best choice is {name}: mixing formats gains nothing at this budget.")
    told = f"KL {_nats(mixed['kl'])} against {_nats(best['kl'])} of {name} on calibration data"
    if mixed["kl"] is not None and mixed["kl"] < best["kl"]:
        return Verdict(True, f"Mixed precision beats the baselines at this budget: {told}.")
    return Verdict(False, f"Mixed precision does not beat {name} at this budget: {told}.")


def _nats(kl: float | None) -> str:
    return "that is not finite" if kl is None else f"{kl:.3g} nats"
