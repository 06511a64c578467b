"""Activation quantization: integer weights and integer inputs in linear layers (W8A8, W4A8, W6A6, W4A4).

Papers: https://arxiv.org/abs/1712.05877 (static scales, integer arithmetic), https://arxiv.org/abs/2206.01861 (a scale
for each token). Weights are rounded to nearest, unless an earlier step has made them integer: then that step's codes
stay, and only the inputs of its layers are rounded. Products inside of attention keep their precision.
"""

from fnmatch import fnmatch

from pydantic import Field
from torch import nn

from core.algorithms.quantization_grids import quantize_groups
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import ROUNDS_INPUTS
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, OneShot
from core.techniques.activation_settings import ActivationSettings
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.inputs import quantize_inputs
from core.techniques.quantization.layers import quantizable


class ActivationQuantization(ActivationSettings, GridSettings, OneShot):
    """Quantize the inputs of linear layers, and their weights unless an earlier step did."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1712.05877"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    refuses = {QUANTIZED_ACTIVATIONS: "Activations are quantized already: remove one of the two steps."}

    bits: int = Field(8, ge=2, le=8, description="bits per weight, where no earlier step has quantized the weights")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits of weights and activations, and how activations are scaled."""
        shared = f" per group of {self.group_size}" if self.granularity == "group" else ""
        return f"W{self.bits}{shared} {self.activation_label()}"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers whose inputs are not quantized yet."""
        self.layers(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers; pruned weights stay exactly zero."""
        quantize_inputs(subject, context, self.layers(subject), self, self.pack)

    def pack(self, linear: nn.Linear) -> QuantLinear:
        """The integer weights nearest to those of `linear`."""
        weight = linear.weight.float()
        return self.scheme(self.bits).pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size))

    def layers(self, subject: Subject) -> list[str]:
        """Full names of the layers whose inputs are quantized: those that an earlier step packed, else dense ones."""
        packed = _packed(subject.model)
        if not packed:
            return quantizable(subject, self.include_head, self.skip)
        chosen = [name for name in packed if not any(fnmatch(name, pattern) for pattern in self.skip)]
        if not chosen:
            message = "leaves none of the quantized layers"
            raise SpecError.of("skip", self.skip, message, "Skip fewer of them.")
        return chosen


def _packed(model: nn.Module) -> list[str]:
    """Full names of the layers with integer weights, experts' too; raises SpecError if one has quantized inputs."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, IntegerLinear) and type(module) not in ROUNDS_INPUTS:
            message = f"is a {type(module).__name__}, whose inputs are quantized already or not by integers"
            raise SpecError.of("model", name, message, "Remove one of the two steps.")
        inside = isinstance(model.get_submodule(name.rpartition(".layers.")[0]), PackedExpertLinear)
        if isinstance(module, PackedExpertLinear) or (isinstance(module, QuantLinear) and not inside):
            names.append(name)
    return names
