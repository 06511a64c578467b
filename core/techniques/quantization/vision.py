"""What quantizers of Vision Transformers share: settings, the layers, and attentions whose products are quantized."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.activation_ranges import static_quantizer
from core.algorithms.packed_layers import replace_by_packed
from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.calibration.activations import ActivationValues
from core.calibration.block import CalibrationBlock
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.nn.activation_quantizer import ActivationQuantizer
from core.nn.attention.full import FullAttention
from core.nn.attention.huggingface_quantized_products import SUPPORTED, HuggingFaceQuantizedProducts
from core.nn.attention.products import OPERANDS, AttentionProducts
from core.nn.attention.quantized_products import QuantizedProductsAttention
from core.nn.quant_linear import QuantLinear
from core.nn.rounded_input import RoundedInput
from core.nn.sparse_integer_linear import with_activations
from core.nn.uneven_quantizers import AnyQuantizer
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import NEEDS_FULL_ATTENTION, OTHER_ATTENTION
from core.techniques.quantization.layers import quantizable

Observed = dict[str, ActivationValues]


class VisionQuantization(OneShot):
    """Base of steps that quantize all that a Vision Transformer multiplies, by calibration without training."""

    family = Family.QUANTIZATION
    leaves = OTHER_ATTENTION | {INTEGER_CODES, QUANTIZED_ACTIVATIONS}
    refuses = NEEDS_FULL_ATTENTION | {
        INTEGER_CODES: "This step needs the weights: remove one of the two quantization steps.",
        REDUCED_TOKENS: "This step quantizes plain blocks: remove one of the two steps.",
        ROTATED_STREAM: "This step scales norms: remove rotation, or use activation_quantization.",
    }

    bits: int = Field(8, ge=3, le=8, description="bits per weight")
    activation_bits: int = Field(8, ge=3, le=8, description="bits per activation, in linear layers and in attention")
    calibration_examples: int = Field(32, ge=1, le=10_000, description="number of calibration images")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits of weights and activations."""
        return f"W{self.bits}A{self.activation_bits}"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model is a Vision Transformer with full attention and dense layers."""
        self.attentions(subject)
        quantizable(subject, self.include_head, self.skip)

    def attentions(self, subject: Subject) -> list[str]:
        """Full names of the attentions."""
        known = anatomy(subject.model)
        names = [block.attention for block in known.attentions.values()]
        sees = any("patch" in name for name in known.embeddings)
        if not names or not sees or not all(_is_supported(subject.model.get_submodule(name)) for name in names):
            message = "is not a Vision Transformer whose attention sees all tokens"
            remedy = "Choose builtin:vit or a ViT or DeiT model, or use activation_quantization."
            raise SpecError.of("model.source", known.architecture, message, remedy)
        return names

    def pack(self, linear: nn.Linear) -> QuantLinear:
        """The integer weights of `linear`, with the scale of least squared error for each output."""
        weight, scheme = linear.weight.float(), QuantizationScheme(self.bits, True, None, "mse")
        return scheme.pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size))

    def uniform(self, low: Tensor, high: Tensor, dtype: torch.dtype) -> ActivationQuantizer:
        """The affine quantizer of a range of one element, in a model of this dtype."""
        return static_quantizer(self.activation_bits, False, low, high, dtype)

    def replace(self, subject: Subject, name: str, quantizer: AnyQuantizer, packed: QuantLinear) -> dict[str, Any]:
        """Put integer weights in the place of a layer, a copy of `quantizer` on its inputs; its row of the report."""
        quantizer = copy.deepcopy(quantizer)
        if isinstance(quantizer, ActivationQuantizer):
            row = replace_by_packed(subject, name, [with_activations(packed, quantizer)], self.bits)
        else:
            row = replace_by_packed(subject, name, [packed], self.bits)
            subject.replace(name, RoundedInput.around(subject.model.get_submodule(name), quantizer))  # type: ignore
        return row | {"activation_bits": self.activation_bits}


def swap_attentions(subject: Subject, names: Sequence[str], *, approximate_exp: bool = False) -> None:
    """Put attentions in place that can quantize their products; the projections stay, and nothing is rounded yet."""
    for name in names:
        attention = subject.model.get_submodule(name)
        made: QuantizedProductsAttention | HuggingFaceQuantizedProducts
        if isinstance(attention, FullAttention):
            made = QuantizedProductsAttention.from_attention(attention, operands={}, approximate_exp=approximate_exp)
        else:
            made = HuggingFaceQuantizedProducts({}, approximate_exp=approximate_exp).train(attention.training)
        subject.replace(name, made)


def products_of(model: nn.Module, attention: str) -> AttentionProducts:
    """The products of an attention that `swap_attentions` has put in place."""
    found = model.get_submodule(f"{attention}.products")
    assert isinstance(found, AttentionProducts)
    return found


@contextmanager
def observing(products: AttentionProducts) -> Iterator[Observed]:
    """Inside, what the operands are is taken in, as vectors along their last axis."""
    seen = {name: ActivationValues() for name in OPERANDS}

    def recorder(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name].add(args[0].detach().reshape(1, -1, args[0].shape[-1]))

        return hook

    handles = [products.get_submodule(name).register_forward_pre_hook(recorder(name)) for name in OPERANDS]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def observe(model: nn.Module, block: CalibrationBlock, attentions: Sequence[str]) -> dict[str, Observed]:
    """What the operands of those of the attentions are that lie in a block, as it is now."""
    seen = {}
    for name in attentions:
        if block.is_block and name.startswith(f"{block.name}."):
            with observing(products_of(model, name)) as seen[name]:
                for _ in block.outputs():
                    pass
    return seen


def _is_supported(attention: nn.Module) -> bool:
    if type(attention) is FullAttention:
        return not attention.causal and attention.rotary is None
    return type(attention).__name__ in SUPPORTED
