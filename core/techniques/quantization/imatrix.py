"""Importance-weighted rounding: the scales under which the weights of large inputs lose least.

Published with llama.cpp's importance matrix: https://github.com/ggml-org/llama.cpp/pull/4861. The error of a weight
counts by the mean square of its input over calibration examples, and a group's scale (with its zero point, for an
affine grid) makes the sum of these errors least: the best of some twenty multiples of the min-max range, each also with
the scale that is best for its codes. Codes are those of the nearest values. One pass over the data, without Hessians:
for inputs that are not correlated nothing is better. Here blocks get the inputs that the quantized blocks before them
give, and experts each count their own tokens.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.context import Context
from core.families import Family
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import SYMMETRIC, GroupSettings
from core.techniques.quantization.layers import quantizable


class Imatrix(OneShot, GroupSettings):
    """Round each weight to nearest, with scales that favour the weights of large inputs."""

    family = Family.QUANTIZATION
    paper = "https://github.com/ggml-org/llama.cpp/pull/4861"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    group_size: int = Field(64, ge=8, le=4096, description="inputs that share a scale, for granularity: group")
    symmetric: bool = SYMMETRIC
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, and what shares a scale."""
        return " ".join([f"{self.bits}-bit", self.shared_scale(), *([] if self.symmetric else ["affine"])])

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones, block by block; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        rows = {}
        for block in context.blocks(subject, self.calibration_examples, names):
            for group, norms in block.input_norms():
                for name in group:
                    linears = linears_of(subject.model.get_submodule(name))
                    packed = [self.quantize(linear, norm.square()) for linear, norm in zip(linears, norms, strict=True)]
                    rows[name] = replace_by_packed(subject, name, packed, self.bits)
        subject.details["layers"] = [rows[name] for name in names if name in rows]

    def quantize(self, linear: nn.Linear, importance: Tensor) -> QuantLinear:
        """The packed layer whose errors, weighted with `importance` [in], are least."""
        scheme = QuantizationScheme(self.bits, self.symmetric, self.inputs_per_scale(), "imatrix")
        weight = linear.weight.float()
        return scheme.pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size, importance))
