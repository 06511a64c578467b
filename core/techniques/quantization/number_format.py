"""Number formats: every weight becomes the nearest value of a floating-point, normal-float, ternary or binary format.

Papers: https://arxiv.org/abs/2310.10537 (microscaling: MXFP4, MXFP8), https://arxiv.org/abs/2209.05433 (FP8),
https://arxiv.org/abs/2305.14314 (NF4, double quantization), https://arxiv.org/abs/1605.04711 (ternary),
https://arxiv.org/abs/1603.05279 (binary). Here only weights are quantized, without data. FP8, ternary and binary scales
are stored like those of `rtn`; the other formats have blocks and scales of their own. The scale of an MX block is
rounded down to a power of two, as the specification says; some libraries round the largest values of a block up.
Without a kernel for these formats, only the size is measured.
"""

from typing import Literal

from pydantic import Field

from core.algorithms.number_formats import FormatScheme
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.formats.catalogue import FORMATS, FormatName
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, OneShot
from core.techniques.quantization.layers import quantizable, quantize_layers


class NumberFormats(OneShot):
    """Round each weight to the nearest value of a number format: FP8, MXFP8, MXFP4, NVFP4, NF4, ternary or binary."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2310.10537"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}
    refuses_with = {"format=binary": {MASK: "Binary weights cannot be zero: choose ternary or another format."}}

    format: FormatName = Field(
        "mxfp4",
        description="number format; bits per weight with scales: fp8 8, mxfp8 8.25, mxfp4 4.25, nvfp4 4.5, nf4 4.5 "
        "(nf4_double: 4.13), ternary 1.6, binary 1",
    )
    granularity: Literal["tensor", "channel", "block"] = Field(
        "channel",
        description="weights that share a scale, for fp8, ternary and binary: all of a layer, an output channel's, or "
        "a block's of 128 × 128",
    )
    include_head: bool = Field(False, description="also quantize the output layer")
    include_embeddings: bool = Field(
        False,
        description="also quantize the embedding of tokens, and with it an output layer that shares its weights",
    )
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The format, and what shares a scale where the format leaves it open."""
        known = FORMATS[self.format]
        return known.title if known.block is not None else f"{known.title} per {self.granularity}"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless there are layers to quantize, and no masked ones for a format without zero."""
        names = quantizable(subject, self.include_head, self.skip, self.include_embeddings)
        masked = next((name for name in names if subject.mask(f"{name}.weight") is not None), None)
        if masked is not None and not FORMATS[self.format].has_zero:
            message = f"has no zero, and weights of {masked} are pruned"
            raise SpecError.of("format", self.format, message, "Choose ternary or another format.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip, self.include_embeddings)
        bits = FORMATS[self.format].element.bits
        quantize_layers(subject, context, names, bits, FormatScheme(self.format, self.granularity).quantize)
