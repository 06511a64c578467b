"""LoRA recovery: train low-rank adapters beside frozen quantized weights.

Papers: https://arxiv.org/abs/2106.09685 (LoRA), https://arxiv.org/abs/2305.14314 (QLoRA). Put it in a train step after
a step that quantizes. A layer gives W x + (alpha / rank) B A x: the codes of W are frozen, as is everything else, A and
B learn in float32, B from zero. Beside it `distill_logits` with the dense stage as teacher makes it quantization-aware
distillation. At the end the adapters stay as a second term in the model's own precision, which adds to the size, or are
merged: the sum is rounded to the grid of the codes, whose scales stay. Merging loses what is smaller than half a step;
the log tells the loss before and after. Zeros among the codes stay zeros, so masks hold in the codes; the second term
has none. Forms without a uniform grid cannot be merged.
"""

from fnmatch import fnmatch
from typing import Any

import torch
from pydantic import Field, PrivateAttr
from torch import nn

from core.algorithms.adapter_merging import can_merge, merged
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.adapted_linear import AdaptedLinear
from core.nn.corrected_linear import CorrectedLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.packed_embedding import PackedEmbedding
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import BLOCKS, INTEGER_CODES, KEPT_WEIGHTS, LOW_RANK, QUANTIZED_ACTIVATIONS, TrainingMethod


class LoraRecovery(TrainingMethod):
    """Train low-rank adapters beside the frozen codes of quantized layers, to make up for what rounding lost."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2106.09685"
    compresses = False
    leaves_with = {"merge=False": frozenset({LOW_RANK})}
    accepts = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    decides = frozenset({BLOCKS, KEPT_WEIGHTS})

    rank: int = Field(8, ge=1, le=4096, description="rank of each adapter")
    alpha: float = Field(16.0, gt=0, le=1e6, description="adapters are multiplied by alpha / rank")
    targets: list[str] = Field(
        default_factory=list,
        description="names of layers to adapt, * matches anything; all quantized ones if empty",
    )
    merge: bool = Field(False, description="round the adapters into the codes at the end, which keeps the size")
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples to tell the loss before and after merging"
    )

    _context: Context = PrivateAttr()
    _adapted: dict[str, AdaptedLinear] = PrivateAttr(default_factory=dict)
    _frozen: list[nn.Parameter] = PrivateAttr(default_factory=list)

    def label(self) -> str:
        """The rank, and whether adapters are merged."""
        return f"LoRA rank {self.rank}" + (" merged" if self.merge else "")

    def check(self, subject: Subject) -> None:
        """The model has quantized layers without adapters, and all of them can be merged if they are to be."""
        layers = self._layers(subject.model)
        for name, layer in layers.items():
            if self.merge and not can_merge(layer):
                message = f"cannot be rounded into {name}, a {type(layer).__name__} without a uniform grid"
                raise SpecError.of("merge", True, message, "Set merge: false.")

    def begin(self, subject: Subject, context: Context) -> None:
        """Freeze the model and put adapters beside its codes."""
        self._context, model = context, subject.model
        self._frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        for name, layer in self._layers(model).items():
            generator = context.generator(f"adapter of {name}")
            self._adapted[name] = AdaptedLinear.around(layer, self.rank, self.alpha / self.rank, generator)
            subject.replace(name, self._adapted[name])

    def end(self, subject: Subject) -> None:
        """Leave the adapters as a second term, or merge them."""
        before = self._loss(subject) if self.merge else None
        rows = [self._settle(subject, name, adapted) for name, adapted in self._adapted.items()]
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        subject.details["layers"] = rows
        self._adapted, self._frozen = {}, []
        if before is not None:
            after = self._loss(subject)
            message = f"merging the adapters changed the loss on calibration data from {before:.4g} to {after:.4g}"
            self._context.record.event("info" if after <= 1.01 * before else "warning", message)

    @torch.no_grad()
    def _settle(self, subject: Subject, name: str, adapted: AdaptedLinear) -> dict[str, Any]:
        base, term = adapted.base, adapted.product()
        assert isinstance(base, IntegerLinear)
        weight = base.weight()
        row = {"name": name, "rank": self.rank, "relative_change": float(term.norm() / weight.norm().clamp_min(1e-30))}
        if not self.merge:
            adapted.fold_scaling_()
            return row
        made = merged(base, term)
        subject.model.set_submodule(name, made)
        moved = made.weight() - weight
        error = (moved - term).norm() / term.norm().clamp_min(1e-30)
        return {**row, "codes_changed": float((moved != 0).float().mean()), "relative_error": float(error)}

    @torch.no_grad()
    def _loss(self, subject: Subject) -> float:
        """The task's mean loss on calibration data."""
        was_training = subject.model.training
        subject.model.eval()
        losses = [
            float(subject.task.loss(logits_of(subject.model, batch), batch))
            for batch in self._context.calibration(self.calibration_examples)
        ]
        subject.model.train(was_training)
        return sum(losses) / len(losses)

    def _layers(self, model: nn.Module) -> dict[str, IntegerLinear]:
        """The quantized layers to adapt, by full name; raises SpecError if there are none, or they have adapters."""
        found, tables = {}, set[nn.Module]()
        for name, module in model.named_modules():
            if isinstance(module, (AdaptedLinear, CorrectedLinear)):
                remedy = "Keep one of the two steps, or set merge: true in the first training."
                raise SpecError.of("model", name, "has a low-rank term already", remedy)
            if isinstance(module, PackedEmbedding):
                tables.add(module.table)  # looked up, not multiplied; a head may share it
            elif isinstance(module, IntegerLinear) and module not in tables:
                found[name] = module
        if not found:
            message = "has no quantized layer"
            remedy = "Put this training after a step that quantizes, such as rtn."
            raise SpecError.of("model", type(model).__name__, message, remedy)
        for pattern in self.targets:
            if not any(fnmatch(name, pattern) for name in found):
                remedy = f"Use names like {next(iter(found))}."
                raise SpecError.of("targets", pattern, "matches no quantized layer", remedy)
        return {n: m for n, m in found.items() if not self.targets or any(fnmatch(n, t) for t in self.targets)}
