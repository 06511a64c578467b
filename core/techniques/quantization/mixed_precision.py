"""Mixed precision: the number format of each layer, chosen for the least loss within a budget.

Papers: https://arxiv.org/abs/1911.03852 (HAWQ-V2), https://arxiv.org/abs/2011.10680 (HAWQ-V3: an integer program),
https://arxiv.org/abs/2411.19146 (Puzzletron). The sensitivity step directly before has measured how much the loss rises
with each layer in each format; an integer program then finds the best choice exactly. The best uniform choice and the
best with the first and last block at 8 bit, within the same budget, are measured beside it: mixed choices do not always
win.
"""

from typing import Any, Literal

import torch
from pydantic import Field

from core.algorithms.second_order_layers import SweepPlan, sweep_by_hessians
from core.allocation.choice import Choice, Unaffordable
from core.allocation.table import BudgetUnit, KernelRule, SensitivityTable
from core.allocation.units import UNITS
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.measure.calibration_kl import CalibrationComparison
from core.models.anatomy import anatomy
from core.subject import Subject
from core.technique import INTEGER_CODES, SENSITIVITY, OneShot
from core.techniques.quantization.choices import (
    MIXED,
    Packed,
    choice_row,
    chosen_formats,
    pack_choice,
    replace_layer,
    schemes_of,
    verdict_on,
)
from core.techniques.quantization.formats import with_layers
from core.techniques.quantization.kernel_times import timed_here
from core.techniques.quantization.layers import quantizable

REMEDY = "Put a sensitivity step directly before this one."


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
    quantizer: Literal["rtn", "gptq"] = Field(
        "rtn", description="how the chosen layers are rounded: to nearest, as sensitivity measured them, or by gptq"
    )
    calibration_examples: int = Field(
        32, ge=1, le=100_000, description="number of calibration examples for comparing choices, and for gptq"
    )

    def label(self) -> str:
        """The budget, and the quantizer unless it is rtn."""
        return f"{self.budget:g} {UNITS[self.unit].symbol}" + (" gptq" if self.quantizer == "gptq" else "")

    def check(self, subject: Subject) -> None:
        """The model has layers to quantize; if the table is there already, the budget is enough for some choice."""
        if subject.sensitivity is None:
            quantizable(subject, include_head=not anatomy(subject.model).tied, skip=[])
        elif self.unit != "milliseconds":
            self._choice(SensitivityTable.from_json(subject.sensitivity))
        if self.quantizer == "gptq" and subject.constraints:
            message = "makes other weights zero than rounding to nearest, so that packed sizes are not known beforehand"
            raise SpecError.of("quantizer", "gptq", message, "Choose rtn for a pruned model.")

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
            context.record.progress(0.5 * index / len(choices), f"{name}: measuring on calibration data")
            packed = pack_choice(subject, table, each)
            with with_layers(subject.model, packed):
                rows.append(choice_row(name, table, each, comparison.compare().kl))
        verdict = verdict_on(rows, choices)
        subject.details["layers"] = self._round(subject, context, table, choice, packed)
        if self.quantizer == "gptq":
            rows.append(choice_row(f"{MIXED}, gptq", table, choice, comparison.compare().kl))
        subject.details["allocation"] = {
            "unit": self.unit,
            "budget": self.budget,
            "kernels": self.kernels,
            "method": table.method,
            "formats": [table.formats[index].name for index in choice],
            "rows": rows[::-1],
            "wins": verdict.wins,
            "verdict": verdict.text,
        }
        context.record.event("info" if verdict.wins else "warning", verdict.text)

    def _round(
        self, subject: Subject, context: Context, table: SensitivityTable, choice: Choice, packed: Packed
    ) -> list[dict[str, Any]]:
        """Replace the layers, and return the rows of the run page's table, unchanged layers included."""
        swept: dict[str, dict[str, Any]] = {}
        if self.quantizer == "gptq":
            schemes = schemes_of(table, choice)
            plan = SweepPlan(act_order=True, schemes=schemes)
            found = sweep_by_hessians(subject, context, list(schemes), self.calibration_examples, plan)
            swept = {row["name"]: row for row in found}
        rows = []
        for name, format in chosen_formats(table, choice):
            row = swept[name] if name in swept else replace_layer(subject, name, format, packed.get(name))
            rows.append({**row, "format": format.name})
        return rows

    def _choice(self, table: SensitivityTable) -> Choice:
        try:
            return table.solve(self.unit, self.budget, self.kernels)
        except Unaffordable as error:
            least = error.least + table.fixed(self.unit)
            message = f"is less than the cheapest choice takes: {least:.4g} {UNITS[self.unit].symbol}"
            raise SpecError.of("budget", self.budget, message, "Raise it, or try fewer bits in sensitivity.") from error
