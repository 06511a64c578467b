"""Mixed precision: the number format of each layer, chosen for the least loss within a budget.

Papers: https://arxiv.org/abs/1911.03852 (HAWQ-V2), https://arxiv.org/abs/2011.10680 (HAWQ-V3: an integer program),
https://arxiv.org/abs/2411.19146 (Puzzletron). The sensitivity step directly before has measured how much the loss rises
with each layer in each format; an integer program then finds the best choice exactly. The best uniform choice and the
best with the first and last block at 8 bit, within the same budget, are measured beside it: mixed choices do not always
win.
"""

from typing import Any

import torch
from pydantic import Field

from core.algorithms.packed_layers import layer_report
from core.analysis.allocation.choice import Choice, Unaffordable
from core.analysis.allocation.table import DENSE, BudgetUnit, KernelRule, SensitivityTable
from core.analysis.allocation.units import UNITS
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.measure.calibration_kl import CalibrationComparison
from core.models.anatomy import anatomy
from core.subject import Subject
from core.technique import INTEGER_CODES, SENSITIVITY, OneShot
from core.techniques.quantization.formats import PackedLayer, layer_of, pack_layer, with_layers
from core.techniques.quantization.kernel_times import timed_here
from core.techniques.quantization.layers import quantizable

REMEDY = "Put a sensitivity step directly before this one."
MIXED = "mixed"


class MixedPrecision(OneShot):
    """Choose each layer's number format for the least predicted loss within a budget, and round the layers to it."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2011.10680"
    leaves = frozenset({INTEGER_CODES})
    follows = {SENSITIVITY: REMEDY}
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    unit: BudgetUnit = Field(
        "average-bits",
        description="what the budget bounds: bits per weight of the layers, with their scales; MB of all tensors; "
        "billions of bit operations per example (multiply-accumulates × bits of weights × bits of activations); or ms "
        "of the layers' kernels per example (for language models: per token)",
    )
    budget: float = Field(4.5, gt=0, le=1e9, description="the most that the choice may take, in that unit")
    kernels: KernelRule = Field(
        "any", description="any: every measured format; here: only formats that a kernel on this worker executes"
    )
    calibration_examples: int = Field(
        32, ge=1, le=100_000, description="number of calibration examples that the choices are compared on"
    )

    def label(self) -> str:
        """The budget."""
        return f"{self.budget:g} {UNITS[self.unit].symbol}"

    def check(self, subject: Subject) -> None:
        """The model has layers to quantize; if the table is there already, the budget is enough for some choice."""
        if subject.sensitivity is None:
            quantizable(subject, include_head=not anatomy(subject.model).tied, skip=[])
        elif self.unit != "milliseconds":
            self._choice(SensitivityTable.from_json(subject.sensitivity))

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Choose, compare with the baselines, and replace the layers; pruned weights stay exactly zero."""
        if subject.sensitivity is None:
            raise SpecError.of("recipe", "mixed_precision", f"needs {SENSITIVITY} from the step before it", REMEDY)
        table = SensitivityTable.from_json(subject.sensitivity)
        if self.unit == "milliseconds":
            table = timed_here(table, subject, context)
        choice = self._choice(table)
        choices = {**table.baselines(self.unit, self.budget, self.kernels), MIXED: choice}
        comparison = CalibrationComparison(subject.model, list(context.calibration(self.calibration_examples)))
        rows = []
        for index, (name, each) in enumerate(choices.items()):
            context.record.progress(index / len(choices), f"{name}: measuring on calibration data")
            packed = _packed(subject, table, each)
            with with_layers(subject.model, packed):
                kl = comparison.compare().kl
            rows.append(self._row(name, table, each, kl))
        subject.details["layers"] = _replace(subject, table, choice, packed)
        formats = [table.formats[index].name for index in choice]
        subject.details["allocation"] = {
            "unit": self.unit,
            "budget": self.budget,
            "kernels": self.kernels,
            "method": table.method,
            "formats": formats,
            "rows": rows[::-1],
            "verdict": _verdict(rows, choices),
        }
        context.record.event("info" if _is_best(rows) else "warning", subject.details["allocation"]["verdict"])

    def _choice(self, table: SensitivityTable) -> Choice:
        try:
            return table.solve(self.unit, self.budget, self.kernels)
        except Unaffordable as error:
            least = error.least + table.fixed(self.unit)
            message = f"is less than the cheapest choice takes: {least:.4g} {UNITS[self.unit].symbol}"
            raise SpecError.of("budget", self.budget, message, "Raise it, or try fewer bits in sensitivity.") from error

    def _row(self, name: str, table: SensitivityTable, choice: Choice, kl: float) -> dict[str, Any]:
        """A choice's name, formats, predicted and measured loss, and costs."""
        used = {table.formats[index].name for index in choice}
        return {
            "name": name,
            "formats": len(used),
            "format": next(iter(used)) if len(used) == 1 else "",
            "predicted": table.predicted(choice),
            "kl": kl if kl == kl and kl != float("inf") else None,
            **{unit: table.cost(choice, unit) for unit in UNITS},
        }


def _packed(subject: Subject, table: SensitivityTable, choice: Choice) -> dict[str, PackedLayer]:
    return {
        name: pack_layer(subject, name, table.formats[index], table.rounding)
        for group, index in zip(table.groups, choice, strict=True)
        for name in group.layers
        if index != DENSE
    }


def _replace(
    subject: Subject, table: SensitivityTable, choice: Choice, packed: dict[str, PackedLayer]
) -> list[dict[str, Any]]:
    """Swap in the packed layers, and return the rows of the run page's table, unchanged layers included."""
    rows = []
    for group, index in zip(table.groups, choice, strict=True):
        for name in group.layers:
            weight = layer_of(subject.model, name).weight
            rounded = packed[name].weight if name in packed else weight.float()
            if name in packed:
                subject.replace(name, packed[name].module)
            rows.append({**layer_report(name, weight, rounded, table.formats[index].bits)})
            rows[-1]["format"] = table.formats[index].name
    return rows


def _is_best(rows: list[dict[str, Any]]) -> bool:
    mixed, others = rows[-1], rows[:-1]
    if mixed["kl"] is None:
        return not others
    return all(row["kl"] is None or mixed["kl"] < row["kl"] for row in others)


def _named(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['format']}".strip()


def _verdict(rows: list[dict[str, Any]], choices: dict[str, Choice]) -> str:
    """One sentence on whether the mixed choice beats the baselines on calibration data."""
    mixed, others = rows[-1], [row for row in rows[:-1] if row["kl"] is not None]
    if not others:
        return "No uniform choice fits the budget, so the mixed choice is compared with nothing."
    best = min(others, key=lambda row: row["kl"])
    if (choices[best["name"]] == choices[MIXED]).all():
        return f"The best choice is {_named(best)}: mixing formats gains nothing at this budget."
    told = f"KL {_nats(mixed['kl'])} against {_nats(best['kl'])} of {_named(best)} on calibration data"
    if _is_best(rows):
        return f"Mixed precision beats the baselines at this budget: {told}."
    return f"Mixed precision does not beat {_named(best)} at this budget: {told}."


def _nats(kl: float | None) -> str:
    return "that is not finite" if kl is None else f"{kl:.3g} nats"
