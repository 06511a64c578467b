"""Dynamic int8: weights and activations in int8, the activations' scales found row by row as they arrive.

Paper: https://arxiv.org/abs/2206.01861 (ZeroQuant: token-wise activations). Here weights have one scale for each output
channel, products are summed in int32 by oneDNN on CPUs and cuBLASLt on GPUs, and outliers are not set
apart as in LLM.int8 (https://arxiv.org/abs/2208.07339). torch's own dynamic quantization has one scale a tensor.
"""

from pydantic import Field

from core.context import Context
from core.families import Family
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.quantization.layers import quantizable, quantize_layers


class DynamicInt8(OneShot):
    """Multiply int8 weights by activations that are rounded to int8, token by token, as they arrive."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2206.01861"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    include_head: bool = Field(False, description="quantize the output layer too")
    skip: list[str] = Field(default_factory=list, description="layers left alone: names, * matches anything")

    def check(self, subject: Subject) -> None:
        """The model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap in integer layers; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        quantize_layers(subject, context, names, 8, DynamicInt8Linear.from_linear)
