"""AWQ: scale salient input channels up before rounding, so that their weights lose less, and clip each group's range.

Paper: https://arxiv.org/abs/2306.00978. The factor of a channel is its mean input magnitude to a power that is searched
for on the output of the attention or feed-forward network that the layers belong to. It is folded into the norm, the
values or `up`, whichever makes the channel; query heads that share a value head share their factors. Inputs of layers
that nothing can be folded into, such as those after GELU, keep their scale. Queries and keys are not clipped. Here
the clipped range is chosen on the inputs that the quantized layers before give.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.awq import clipped, search_scales
from core.algorithms.channel_scaling import fold_
from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.algorithms.quantization_grids import Fit, QuantizedWeight, quantize_groups
from core.calibration.statistics import InputMagnitudes, OfExperts, Statistic
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy, attention_halves
from core.models.foldable import Fold, folds
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.layers import quantizable


class Awq(GridSettings, OneShot):
    """Scale channels by the size of their inputs and clip ranges, both searched for, then round to the nearest."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2306.00978"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "group"] = Field(
        "group", description="weights that share a scale: an output channel's, or a group's"
    )
    symmetric: bool = Field(
        False, description="use a grid symmetric about zero; an affine grid fits skewed weights better"
    )
    clip: bool = Field(True, description="search for the range of each group that gives the least output error")
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, what shares a scale, and what differs from the paper's form."""
        shared = f"per group of {self.group_size}" if self.granularity == "group" else "per channel"
        parts = [f"{self.bits}-bit {shared}", "symmetric" if self.symmetric else "", "" if self.clip else "no clipping"]
        return " ".join(filter(None, parts))

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless there are dense layers, and a place whose channels can be scaled."""
        if not self.places(subject, quantizable(subject, self.include_head, self.skip)):
            message = "has no place where the scale of a channel could be folded into what makes it"
            remedy = "Use rtn, or a Transformer whose blocks are known to Slimboard."
            raise SpecError.of("model.source", type(subject.model).__name__, message, remedy)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Scale block by block, then clip and round block by block."""
        names = quantizable(subject, self.include_head, self.skip)
        exponents = self._scale(subject, context, names)
        rows = {
            name: row | {"exponent": exponents.get(name, 0.0)} for name, row in self._round(subject, context, names)
        }
        subject.details["layers"] = [rows[name] for name in names]

    def places(self, subject: Subject, names: Sequence[str]) -> list[Fold]:
        """Where factors are folded: places whose consumers are all quantized."""
        return [fold for fold in folds(subject.model) if set(fold.consumers) <= set(names)]

    def _scale(self, subject: Subject, context: Context, names: Sequence[str]) -> dict[str, float]:
        """Fold the best scales of every place, and return the exponent of each layer's."""
        waiting = self.places(subject, names)
        watched = [name for fold in waiting for name in fold.consumers]
        seen: dict[str, Statistic | OfExperts] = {}
        exponents: dict[str, float] = {}
        for block in context.blocks(subject, self.calibration_examples, watched):
            for group, statistic in block.statistics(InputMagnitudes):
                seen |= dict.fromkeys(group, statistic)
            ready = [fold for fold in waiting if seen.keys() >= set(fold.consumers)]
            waiting = [fold for fold in waiting if fold not in ready]
            calls = block.calls({fold.parent for fold in ready})
            scheme = self.scheme(self.bits)
            found = [
                search_scales(subject.model, fold, _mean_inputs(fold, seen), calls[fold.parent], scheme)
                for fold in ready
            ]
            for fold, (exponent, scales, _) in zip(ready, found, strict=True):
                fold_(subject.model, fold, scales)
                exponents |= dict.fromkeys(fold.consumers, exponent)
        return exponents

    def _round(self, subject: Subject, context: Context, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Replace the layers, each by its name with its row of the report; those without inputs are not clipped."""
        left, unclipped = list(names), _queries_and_keys(subject.model) if self.clip else set(names)
        for block in context.blocks(subject, self.calibration_examples, names) if self.clip else ():
            for group, hessians in block.hessians():
                packed: dict[str, list[QuantLinear]] = {name: [] for name in group}
                for index, hessian in enumerate(hessians):
                    for name in group:
                        linear = linears_of(subject.model.get_submodule(name))[index]
                        packed[name].append(self._pack(linear, None if name in unclipped else hessian))
                for name, matrices in packed.items():
                    left.remove(name)
                    yield name, replace_by_packed(subject, name, matrices, self.bits)
        for name in left:
            matrices = [self._pack(linear, None) for linear in linears_of(subject.model.get_submodule(name))]
            yield name, replace_by_packed(subject, name, matrices, self.bits)

    def _pack(self, linear: nn.Linear, hessian: Tensor | None) -> QuantLinear:
        weight = linear.weight.float()

        def quantize(fit: Fit, group_size: int | None) -> QuantizedWeight:
            chosen = weight if hessian is None else clipped(weight, hessian.float(), fit, group_size)
            return quantize_groups(chosen, fit, group_size)

        return self.scheme(self.bits).pack(linear, quantize)


def _queries_and_keys(model: nn.Module) -> set[str]:
    return {name for names in attention_halves(model, anatomy(model)) for name in (names.q, names.k)}


def _mean_inputs(fold: Fold, seen: Mapping[str, Statistic | OfExperts]) -> Tensor:
    """The mean magnitude of each input of a fold's consumers: [in], or [experts, in] where each has its own factors."""
    if not fold.is_norm:
        return seen[fold.consumers[0]].value[..., 0, :].squeeze(0)
    statistics = {id(seen[name]): seen[name] for name in fold.consumers}.values()
    parts = [part for s in statistics for part in (s.parts if isinstance(s, OfExperts) else [s]) if part.count]
    total = torch.stack([part.count * part.value[0, 0] for part in parts]).sum(0)
    return total / sum(part.count for part in parts)
