"""Dynamic int8: weights and activations in int8; activations get a scale for each row when it arrives.

Paper: https://arxiv.org/abs/2206.01861 (ZeroQuant: token-wise activations). Here weights have one scale for each output
channel, products are summed in int32 by oneDNN on CPUs and by cuBLASLt on GPUs, and outliers are not kept apart as
in LLM.int8 (https://arxiv.org/abs/2208.07339). torch's own dynamic quantization has one scale for a whole tensor.
"""

import torch
from pydantic import Field
from torch import nn

from core.algorithms.quantization_grids import min_max
from core.context import Context
from core.families import Family
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.nn.precision import is_precise
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, OneShot
from core.techniques.quantization.layers import quantizable, quantize_layers


class DynamicInt8(OneShot):
    """Quantize weights to int8, and activations to int8 per token at run time."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2206.01861"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    include_head: bool = Field(False, description="also quantize the output layer")
    include_embeddings: bool = Field(
        False,
        description="also quantize the embedding of tokens, and with it an output layer that shares its weights",
    )
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip, self.include_embeddings)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by integer ones; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip, self.include_embeddings)
        quantize_layers(subject, context, names, 8, quantize)


def quantize(linear: nn.Linear) -> DynamicInt8Linear:
    """The integer layer nearest to `linear`, with one scale for each output channel and all 256 levels.

    Scales of a 16-bit model are stored in its dtype where that is precise enough, else in float32.
    """
    weight = linear.weight.detach().float()
    for dtype in (linear.weight.dtype, torch.float32):
        grid = min_max(weight, 8, symmetric=True, dtype=dtype)
        if is_precise(grid.scale, dtype):
            break
    codes = (grid.quantize(weight) - grid.zero_point).to(torch.int8)
    return DynamicInt8Linear.of(linear, codes, grid.scale.to(dtype))
