"""HQQ: zero points that make a robust norm of the errors least, found in a few iterations without data.

Published by Badri and Shaji (2023). As in their code, the grid is affine, its zero points are real numbers (stored as
the scales are, and counted), the norm is 0.7, and 20 iterations start with a quadratic weight of 10 that grows by 1 %
each time. Here errors are measured in steps of the grid, so that the unit of the weights does not matter; each group
keeps the best of its iterations, never worse than rounding to nearest; groups with pruned weights have integer zero
points, since these weights must stay exactly zero; and scales may be fitted too.
"""

from functools import partial
from typing import Literal

from pydantic import Field
from torch import nn

from core.algorithms.half_quadratic import half_quadratic
from core.algorithms.quantization_grids import in_stored_dtype, quantize_groups
from core.context import Context
from core.families import Family
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import GroupSettings
from core.techniques.quantization.layers import quantizable, quantize_layers


class Hqq(OneShot, GroupSettings):
    """Round weights to grids whose zero points (and scales, if wanted) are optimized, without calibration data."""

    family = Family.QUANTIZATION
    paper = "https://mobiusml.github.io/hqq_blog/"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "group"] = Field(
        "group", description="weights that share a scale: an output channel's, or a group's"
    )
    group_size: int = Field(64, ge=8, le=4096, description="inputs that share a scale, for granularity: group")
    fit_scale: bool = Field(False, description="also optimize the scales, not only the zero points")
    norm: float = Field(0.7, gt=0, le=1, description="exponent of the errors; a smaller one counts outliers less")
    iterations: int = Field(20, ge=1, le=1000, description="number of iterations of the solver")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, and what shares a scale."""
        return " ".join([f"{self.bits}-bit", self.shared_scale(), *(["fitted scales"] if self.fit_scale else [])])

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        quantize_layers(subject, context, names, self.bits, self.quantize)

    def quantize(self, linear: nn.Linear) -> QuantLinear:
        """The packed layer nearest to `linear`, in the norm of the settings."""
        weight, size = linear.weight.detach().float(), self.inputs_per_scale()
        size = size if size and size < linear.in_features else None
        fit = partial(
            half_quadratic, bits=self.bits, norm=self.norm, iterations=self.iterations, fit_scale=self.fit_scale
        )
        codes, scales, zero_points = in_stored_dtype(
            linear, lambda dtype: quantize_groups(weight, partial(fit, dtype=dtype), size)
        )
        return QuantLinear.of(
            linear, codes, scales, zero_points, bits=self.bits, group_size=size, real_zero_points=True
        )
