"""LLM.int8: int8 weights and activations, with the columns of outliers kept out of the rounding.

Paper: https://arxiv.org/abs/2208.07339. In each batch, columns of a layer's input with a magnitude of `threshold` or
more are multiplied as they are. All others are rounded with a scale for each token, and their products with the int8
weights, which have a scale for each output, are exact. As in the authors' library, weights are stored in int8 only.
Here weights use all 256 levels, as those of dynamic_int8 do.
"""

from pydantic import Field
from torch import nn

from core.context import Context
from core.families import Family
from core.nn.llm_int8_linear import LlmInt8Linear
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, OneShot
from core.techniques.quantization.dynamic_int8 import quantize
from core.techniques.quantization.layers import quantizable, quantize_layers


class LlmInt8(OneShot):
    """Quantize weights and activations to int8, except for the activations' outlier columns."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2208.07339"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    threshold: float = Field(
        6.0, ge=0, le=1e9, description="magnitude from which an activation is an outlier; 0 rounds no activation"
    )
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        quantize_layers(subject, context, names, 8, self.pack)

    def pack(self, linear: nn.Linear) -> LlmInt8Linear:
        """The integer layer nearest to `linear`."""
        return LlmInt8Linear.around(quantize(linear), self.threshold)
