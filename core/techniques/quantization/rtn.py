"""Round to nearest: every weight becomes the nearest value of a uniform grid, without data.

Paper: https://arxiv.org/abs/1712.05877 (affine grids), https://arxiv.org/abs/2206.01861 (groups of weights). Here only
the weights of linear layers are quantized, and those of embeddings if asked. Scales are stored in the model's dtype
(float16 for a float32 model), or in float32 where some are too small or too large for it, and are rounded before the
codes are chosen.
"""

from pydantic import Field
from torch import nn

from core.algorithms.quantization_grids import quantize_groups
from core.context import Context
from core.families import Family
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.layers import quantizable, quantize_layers


class Rtn(OneShot, GridSettings):
    """Round each weight to the nearest of 2^bits levels, with a scale per output channel or group of inputs."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1712.05877"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(8, ge=2, le=8, description="bits per weight")
    group_size: int = Field(64, ge=8, le=4096, description="inputs that share a scale, for granularity: group")
    include_head: bool = Field(False, description="also quantize the output layer")
    include_embeddings: bool = Field(
        False,
        description="also quantize the embedding of tokens, and with it an output layer that shares its weights",
    )
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """What the grid is."""
        return self.grid_label()

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip, self.include_embeddings)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip, self.include_embeddings)
        quantize_layers(subject, context, names, self.bits, self.quantize)

    def quantize(self, linear: nn.Linear) -> QuantLinear:
        """The packed layer nearest to `linear`."""
        weight = linear.weight.float()
        return self.scheme(self.bits).pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size))
