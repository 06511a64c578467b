"""Round to nearest: every weight becomes the nearest value of a uniform grid, without data.

Paper: https://arxiv.org/abs/1712.05877 (affine grids), https://arxiv.org/abs/2206.01861 (groups of weights). Here
for linear layers, weights only. Scales are stored in the model's dtype (float16 for a float32 model), or in float32
where some are too small or too large for it, and are rounded before the codes are chosen.
"""

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.quantization_grids import OBSERVERS, Grid, quantize_groups
from core.context import Context
from core.families import Family
from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.quantization.layers import quantizable, quantize_layers

Observer = Literal["min-max", "percentile", "mse"]


class Rtn(OneShot):
    """Round each weight to the nearest of 2^bits levels, per output channel or group of inputs."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1712.05877"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(8, ge=2, le=8, description="bits a weight")
    granularity: Literal["channel", "group"] = Field("channel", description="what shares a scale")
    group_size: int = Field(64, ge=8, le=4096, description="inputs that share a scale, where granularity is group")
    symmetric: bool = Field(True, description="levels symmetric about zero; affine ones fit skewed weights")
    observer: Observer = Field("min-max", description="how the range of the levels is chosen")
    percentile: float = Field(99.9, gt=50, le=100, description="share below the upper end, for that observer")
    include_head: bool = Field(False, description="quantize the output layer too")
    skip: list[str] = Field(default_factory=list, description="layers left alone: names, * matches anything")

    def label(self) -> str:
        """Bits and what shares a scale."""
        shared = f"per group of {self.group_size}" if self.granularity == "group" else "per channel"
        parts = [f"{self.bits}-bit", shared, "" if self.symmetric else "affine"]
        return " ".join([*filter(None, parts), *([self.observer] if self.observer != "min-max" else [])])

    def check(self, subject: Subject) -> None:
        """The model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap in packed layers; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        quantize_layers(subject, context, names, self.bits, self.quantize)

    def quantize(self, linear: nn.Linear) -> QuantLinear:
        """The packed layer nearest to `linear`."""
        group_size = self.group_size if self.granularity == "group" and self.group_size < linear.in_features else None
        for dtype in scale_dtypes(linear.weight.dtype):
            observe = partial(self._observe, dtype=dtype)
            codes, scales, zero_points = quantize_groups(linear.weight.float(), group_size, observe)
            if is_precise(scales, dtype):
                break
        return QuantLinear.of(
            linear,
            codes,
            scales.to(dtype),
            None if self.symmetric else zero_points,
            bits=self.bits,
            group_size=group_size,
        )

    def _observe(self, rows: Tensor, dtype: torch.dtype) -> Grid:
        more = {"share": self.percentile} if self.observer == "percentile" else {}
        return OBSERVERS[self.observer](rows, self.bits, self.symmetric, dtype, **more)
