"""Low-rank correction: round weights to a few bits, and add a thin pair of layers to each that takes the error back.

Papers: https://arxiv.org/abs/2410.21271 (EoRA), https://arxiv.org/abs/2402.02446 (LQER). Of all pairs of its rank, it
is the one that leaves the least error in the layer's outputs on calibration inputs. Here the step rounds the weights
itself, to nearest or by GPTQ, since the error is known only beside the original weights. Blocks get the inputs that the
corrected blocks before them give, and experts each have their own pair. The factors are stored in 16 bits.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.low_rank_correction import balanced, correction
from core.algorithms.packed_layers import layer_report, linears_of
from core.algorithms.quantization_grids import Fit, QuantizedWeight, quantize_groups
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import DAMPING, Factor, factorize, solve
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.corrected_linear import CorrectedLinear
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import scale_dtypes
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, MASK, OneShot
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.layers import quantizable


class LowRankCorrection(OneShot, GridSettings):
    """Round weights to a few bits and correct each layer's outputs with a low-rank term."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2410.21271"
    leaves = frozenset({INTEGER_CODES, LOW_RANK})
    refuses = {
        INTEGER_CODES: "This step quantizes the weights itself: remove the other quantization step.",
        MASK: "The correction makes pruned weights nonzero again: remove one of the two steps.",
    }

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    rank: int = Field(32, ge=1, le=1024, description="rank of the correction")
    rounding: Literal["nearest", "gptq"] = Field(
        "nearest", description="how weights are rounded: to nearest, or by second order as in GPTQ"
    )
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, the rank, and the rounding where it is GPTQ's."""
        return f"{self.bits}-bit rank {self.rank}" + (" gptq" if self.rounding == "gptq" else "")

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are neither quantized nor pruned."""
        names = quantizable(subject, self.include_head, self.skip)
        masked = next((name for name in names if subject.mask(f"{name}.weight") is not None), None)
        if masked is not None:
            raise SpecError.of("low_rank_correction", masked, "is pruned", self.refuses[MASK])

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by corrected ones, block by block."""
        self.check(subject)
        names = quantizable(subject, self.include_head, self.skip)
        rows: dict[str, dict[str, Any]] = {}
        for block in context.blocks(subject, self.calibration_examples, names):
            for group, hessians in block.hessians():
                corrections = [_Correction(self, subject, name) for name in group]
                for hessian in hessians:
                    factor = factorize(hessian, DAMPING) if self.rounding == "gptq" else None
                    for each in corrections:
                        each.correct_next(hessian, factor)
                rows |= {each.name: each.finish() for each in corrections}
        subject.details["layers"] = [rows[name] for name in names if name in rows]

    def quantize(self, linear: nn.Linear, factor: Factor | None) -> QuantLinear:
        """The packed layer without its correction; rounded to nearest where there is no factor of its Hessian."""

        def by_columns(fit: Fit, group_size: int | None) -> QuantizedWeight:
            assert factor is not None
            rounding = Rounding(fit, group_size)
            solve(linear.weight, factor, rounding=rounding)
            return rounding.result()

        def to_nearest(fit: Fit, group_size: int | None) -> QuantizedWeight:
            return quantize_groups(linear.weight.float(), fit, group_size)

        return self.scheme(self.bits).pack(linear, to_nearest if factor is None else by_columns)


class _Correction:
    """A layer whose matrices are corrected one after another: one of a linear layer, or one for each expert."""

    def __init__(self, step: LowRankCorrection, subject: Subject, name: str):
        self.step, self.subject, self.name = step, subject, name
        self.layer = subject.model.get_submodule(name)
        self.linears = linears_of(self.layer)
        self.made: list[CorrectedLinear] = []
        self.before = self.after = self.size = 0.0  # squares of the outputs' errors, and of the outputs

    def correct_next(self, hessian: Tensor, factor: Factor | None) -> None:
        """Correct the next matrix, whose inputs have this Hessian [in, in]."""
        linear = self.linears[len(self.made)]
        packed = self.step.quantize(linear, factor)
        weight = linear.weight.float()
        rank = min(self.step.rank, linear.in_features, linear.out_features)
        up, down = balanced(*correction(weight - packed.weight(), hessian, rank))
        made = CorrectedLinear.of(packed, up, down, _dtype_for(linear.weight.dtype, up, down))
        self.made.append(made)
        self.before += _squares(weight - packed.weight(), hessian)
        self.after += _squares(weight - made.weight(), hessian)
        self.size += _squares(weight, hessian)

    def finish(self) -> dict[str, Any]:
        """Put what was made in the layer's place, and return its row of the report.

        An `output_error` is the root mean square error of the layer's outputs over their root mean square.
        """
        weight, corrected = self.layer.get_parameter("weight"), torch.cat([made.weight() for made in self.made])
        report = layer_report(self.name, weight, corrected, self.step.bits)
        is_experts = isinstance(self.layer, ExpertLinear)
        self.subject.replace(self.name, PackedExpertLinear.of(self.made) if is_experts else self.made[0])
        size = max(self.size, 1e-30)
        errors = {"output_error": (self.after / size) ** 0.5, "uncorrected_output_error": (self.before / size) ** 0.5}
        return {**report, "rank": self.made[0].rank, **errors}


def _dtype_for(weight: torch.dtype, *factors: Tensor) -> torch.dtype:
    """The dtype that factors are kept in, beside weights of this dtype: 16 bits unless they are too large for it."""
    preferred, wide = scale_dtypes(weight)
    largest = max(float(factor.abs().max()) for factor in factors)
    return preferred if largest <= torch.finfo(preferred).max else wide


def _squares(matrix: Tensor, hessian: Tensor) -> float:
    return max(0.0, float((matrix @ hessian.float() * matrix).sum()))
