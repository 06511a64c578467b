"""Sensitivity: how much each layer's quantization alone costs, in each of several formats. The model stays as it is.

Papers: https://arxiv.org/abs/2004.09602 (section 5: one layer at a time), https://arxiv.org/abs/1911.03852 (HAWQ-V2:
the mean Hessian trace times ‖ΔW‖²), https://arxiv.org/abs/2102.05426 (BRECQ, section 3.3: Σ g²ΔW²). Layers that share
their input (q, k and v; gate and up) are one group with one format, since inference engines merge them; so are all
experts of a layer.
The table is stored with the stage; `mixed_precision` and the run page choose formats from it for any budget.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from core.algorithms.sensitivity import fisher_increase, hessian_increase, mean_traces, predictions_per_example
from core.algorithms.structured.gradients import gradient_moments
from core.allocation.table import LayerFormat, SensitivityTable
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.measure.calibration_kl import CalibrationComparison
from core.nn.experts.linear import ExpertLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, SENSITIVITY, OneShot
from core.techniques.quantization.formats import PackedLayer, changed_weights, with_layers
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.sensitivity_table import Estimate, TableBuilder

GRADIENT_METHODS = ("fisher", "hessian")


class Sensitivity(OneShot):
    """Measure how much quantizing each layer alone costs, in each of several formats, without changing the model."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2004.09602"
    compresses = False
    changes = False
    leaves = frozenset({SENSITIVITY})
    refuses = {INTEGER_CODES: "Sensitivity is measured on layers that are not quantized yet: put it before."}

    method: Literal["kl", "loss", "fisher", "hessian"] = Field(
        "kl",
        description="kl and loss measure the change of predictions or of the loss with one layer quantized at a time; "
        "fisher and hessian estimate the loss's increase from gradients, with less compute for many formats",
    )
    bits: list[Literal[2, 3, 4, 5, 6, 7, 8]] = Field(
        [2, 3, 4, 6, 8], min_length=1, description="bits per weight to try"
    )
    granularities: list[Literal["channel", "group"]] = Field(
        ["channel", "group"], min_length=1, description="weights that share a scale: an output channel's, or a group's"
    )
    group_size: int = Field(64, ge=8, le=4096, description="inputs that share a scale, for granularity: group")
    symmetric: bool = Field(True, description="use grids symmetric about zero")
    observer: Literal["min-max", "mse"] = Field("mse", description="range estimator of the grid")
    int8_activations: bool = Field(
        False, description="also try 8-bit weights with 8-bit activations, for methods kl and loss"
    )
    calibration_examples: int = Field(32, ge=1, le=100_000, description="number of calibration examples")
    probes: int = Field(8, ge=1, le=1000, description="random vectors per batch that estimate the trace, for hessian")
    include_head: bool = Field(False, description="also measure the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The method, and the bits that it tries."""
        return f"{self.method} at {', '.join(map(str, sorted(set(self.bits))))} bit"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless there are layers to measure, and the method can measure all formats."""
        names = quantizable(subject, self.include_head, self.skip)
        if self.method in GRADIENT_METHODS and self.int8_activations:
            message = "needs a measured method: gradients tell nothing of rounded activations"
            raise SpecError.of("int8_activations", True, message, "Choose method kl or loss.")
        experts = [name for name in names if isinstance(subject.model.get_submodule(name), ExpertLinear)]
        if self.method == "hessian" and experts:
            message = f"needs a second derivative, which layers of experts such as {experts[0]} do not have"
            raise SpecError.of("method", self.method, message, "Choose kl, loss or fisher.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Measure; the table goes to the stage's details."""
        names = quantizable(subject, self.include_head, self.skip)
        batches = list(context.calibration(self.calibration_examples))
        builder = TableBuilder(subject, context, self.formats(), self.rounding())
        examples = sum(len(batch["labels"]) for batch in batches)
        builder.observe(context.blocks(subject, self.calibration_examples, names), examples)
        table = builder.measure(self.method, self._estimate(subject, context, builder.layers, batches))
        subject.details["sensitivity"] = table.to_json()
        subject.details["profiles"] = builder.profiles
        _report_worst(table, context)

    def formats(self) -> list[LayerFormat]:
        """The formats to try, from few bits to many."""
        sizes = [{"channel": None, "group": self.group_size}[name] for name in dict.fromkeys(self.granularities)]
        found = [LayerFormat(bits, size) for bits in sorted(set(self.bits)) for size in sizes]
        return [*found, LayerFormat(8, None, 8)] if self.int8_activations else found

    def rounding(self) -> dict[str, Any]:
        """Settings of `QuantizationScheme`."""
        return {"symmetric": self.symmetric, "range_estimator": self.observer}

    def _estimate(
        self, subject: Subject, context: Context, names: list[str], batches: list[dict[str, torch.Tensor]]
    ) -> Estimate:
        weights = {name: subject.model.get_parameter(f"{name}.weight") for name in names}
        if self.method == "fisher":
            moments = gradient_moments(subject.model, context.task, batches, weights)[1]
            predictions = predictions_per_example(batches)
            return _summed(subject, lambda name, change: fisher_increase(change, moments[name], predictions))
        if self.method == "hessian":
            generator = context.generator("hessian")
            traces = mean_traces(subject.model, context.task, batches, weights, self.probes, generator)
            return _summed(subject, lambda name, change: hessian_increase(change, traces[name]))
        task = context.task if self.method == "loss" else None
        comparison = CalibrationComparison(subject.model, batches, task)

        def measured(packed: Mapping[str, PackedLayer]) -> float:
            with with_layers(subject.model, packed):
                change = comparison.compare()
            return change.kl if change.loss is None else change.loss

        return measured


def _summed(subject: Subject, increase: Callable[[str, torch.Tensor], float]) -> Estimate:
    """The sum of the layers' own increases."""

    def estimate(packed: Mapping[str, PackedLayer]) -> float:
        return sum(increase(name, change) for name, change in changed_weights(subject.model, packed))

    return estimate


def _report_worst(table: SensitivityTable, context: Context) -> None:
    """Tell which layers hurt most where the fewest bits are used."""
    losses = table.losses[:, 1]
    worst = sorted(range(len(losses)), key=lambda i: -losses[i])[:3]
    told = ", ".join(f"{table.groups[i].name} ({losses[i]:.3g} nats)" for i in worst)
    context.record.event("info", f"most sensitive at {table.formats[1].name}: {told}")
