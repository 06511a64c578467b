"""Palettization: k-means finds a few values for a layer's weights, and each weight is stored as the index of one.

Paper: https://arxiv.org/abs/1510.00149 (Deep Compression, section 3, without its retraining and Huffman coding). Errors
may be weighted by the mean square of the input that a weight is multiplied with, as GGUF's importance matrix does; then
blocks come in the order of execution, each on what the blocks before it give. K-means begins at quantiles and at a
uniform grid, and the better result is taken. Palettes are stored in the model's dtype (float16 for a float32 model).
No kernel multiplies indices: the model gets smaller, not faster.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.algorithms.palettes import find_palettes, nearest_codes
from core.context import Context
from core.families import Family
from core.nn.integer_linear import scale_dtypes
from core.nn.palette_linear import PaletteLinear
from core.nn.precision import is_precise
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.quantization.layers import quantizable


class Palettize(OneShot):
    """Store each weight as the index of one of 2^bits values, found by k-means, that a layer or its rows share."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1510.00149"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=1, le=8, description="bits per weight")
    granularity: Literal["tensor", "rows"] = Field(
        "tensor", description="weights that share a palette: the whole layer's, or a group of rows"
    )
    rows: int = Field(16, ge=1, le=4096, description="output channels that share a palette, for granularity: rows")
    weighted: bool = Field(False, description="weight errors by the mean square of inputs; takes calibration data")
    calibration_examples: int = Field(128, ge=1, le=100_000, description="calibration examples, for weighted")
    iterations: int = Field(50, ge=1, le=10_000, description="most steps of k-means")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, what shares a palette, and whether inputs count."""
        shared = "per layer" if self.granularity == "tensor" else f"per {self.rows} rows"
        return " ".join([f"{self.bits}-bit", shared, *(["weighted"] if self.weighted else [])])

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        rows: dict[str, dict[str, Any]] = {}
        if self.weighted:
            for block in context.blocks(subject, self.calibration_examples, names):
                for group, norms in block.input_norms():
                    rows |= {name: self._replace(subject, name, norms.square()) for name in group}
        remaining = [name for name in names if name not in rows]
        for index, name in enumerate(remaining):
            context.record.progress(index / len(remaining), name)
            rows[name] = self._replace(subject, name, None)
        subject.details["layers"] = [rows[name] for name in names]

    def palettize(
        self, linear: nn.Linear, importance: Tensor | None = None, mask: Tensor | None = None
    ) -> PaletteLinear:
        """The packed layer of a linear one; `importance` [in] is of its inputs, `mask` [out, in] its kept weights."""
        weight = linear.weight.detach().float()
        weights = torch.ones_like(weight) if importance is None else importance.to(weight).expand_as(weight)
        weights = weights if mask is None else weights * mask
        size = min(self.rows, len(weight)) if self.granularity == "rows" else len(weight)
        whole = len(weight) // size * size
        parts = [slice(start, end) for start, end in ((0, whole), (whole, len(weight))) if start < end]
        groups = [weight[part].reshape(-1, min(size, part.stop - part.start) * weight.shape[1]) for part in parts]
        found = [
            find_palettes(own, weights[part].reshape_as(own), self.bits, self.iterations, with_zero=mask is not None)
            for own, part in zip(groups, parts, strict=True)
        ]
        exact = torch.cat([palettes.values for palettes in found])
        preferred, full = scale_dtypes(linear.weight.dtype)
        palettes = exact.to(preferred if is_precise(exact.abs().amax(1), preferred) else full)
        shares = palettes.float().split([len(own) for own in groups])
        codes = [nearest_codes(*pair).view(-1, weight.shape[1]) for pair in zip(groups, shares, strict=True)]
        shared = self.rows if self.granularity == "rows" else None
        return PaletteLinear.of(linear, torch.cat(codes), palettes, bits=self.bits, rows=shared)

    def _replace(self, subject: Subject, name: str, importance: Tensor | None) -> dict[str, Any]:
        """Put a layer's packed matrices in its place; `importance` [matrices, in] is of their inputs."""
        linears, mask = linears_of(subject.model.get_submodule(name)), subject.mask(f"{name}.weight")
        inputs = [None] * len(linears) if importance is None else list(importance)
        masks = [None] * len(linears) if mask is None else list(mask.chunk(len(linears)))
        packed = [self.palettize(*given) for given in zip(linears, inputs, masks, strict=True)]
        return replace_by_packed(subject, name, packed, self.bits)
