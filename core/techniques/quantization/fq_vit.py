"""FQ-ViT: quantize a Vision Transformer fully, its norms' inputs and its probabilities included.

Paper: https://arxiv.org/abs/2111.13824. Inputs of norms have one scale for a layer, and for each channel 1, 2, 4 or 8
times an eighth of it. Probabilities are powers of two, so that their product with values is a sum of shifts. Softmax
and GELU are computed by second-order polynomials, as integer arithmetic can. All other activations have one affine
grid, of least squared error, scores before the softmax included. Norms, softmax, GELU and products inside of attention
run unpacked: size only.
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from core.algorithms.activation_ranges import preferred_dtype, static_range
from core.calibration.activations import ActivationValues
from core.context import Context
from core.models.anatomy import anatomy
from core.nn.attention.products import AttentionProducts
from core.nn.integer_functions import IntegerGelu
from core.nn.integer_linear import dtype_name
from core.nn.rounded_norm import RoundedNorm
from core.nn.uneven_quantizers import LogQuantizer, PowerOfTwoQuantizer
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.vision import (
    Observed,
    VisionQuantization,
    observe,
    observing,
    products_of,
    swap_attentions,
)


class FqVit(VisionQuantization):
    """Quantize all of a Vision Transformer's blocks, with integer approximations of softmax and GELU."""

    paper = "https://arxiv.org/abs/2111.13824"

    attention_bits: int = Field(4, ge=2, le=8, description="bits per probability of attention, as a power of two")
    norm_bits: int = Field(8, ge=3, le=8, description="bits per input of a norm")
    integer_functions: bool = Field(
        True, description="compute softmax and GELU by polynomials, as integer arithmetic does"
    )

    def label(self) -> str:
        """The bits of weights, activations and probabilities."""
        return f"W{self.bits}A{self.activation_bits} attention {self.attention_bits}-bit"

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Quantize block by block, each on what the quantized blocks before it give."""
        model = subject.model
        names, attentions = quantizable(subject, self.include_head, self.skip), self.attentions(subject)
        known = anatomy(model)
        norms = [norm for b in known.blocks for norm in (b.norm1, b.norm2)]
        swap_attentions(subject, attentions, approximate_exp=self.integer_functions)
        for gelu in _gelus(model) if self.integer_functions else ():
            subject.replace(gelu, IntegerGelu())
        rows: dict[str, dict[str, Any]] = {}
        for block in context.blocks(subject, self.calibration_examples, names):
            own = [name for name in norms if block.is_block and name.startswith(f"{block.name}.")]
            operands = observe(model, block, attentions)
            with observing(model, own) as inputs:
                statistics = list(block.statistics(ActivationValues))
            for group, values in statistics:
                assert isinstance(values, ActivationValues)
                low, high = static_range(values, "mse", self.activation_bits, False)
                rows |= self.replace_group(subject, group, self.uniform(low, high, subject.dtype))
            for name, seen in operands.items():
                self._quantize_products(products_of(model, name), seen, subject.dtype)
            self._quantize_norms(subject, inputs)
        if known.norm is not None:
            with observing(model, [known.norm]) as inputs:
                for batch in context.calibration(self.calibration_examples):
                    logits_of(model, batch)
            self._quantize_norms(subject, inputs)
        subject.details["layers"] = [rows[name] for name in names if name in rows]

    def _quantize_products(self, products: AttentionProducts, seen: Observed, dtype: torch.dtype) -> None:
        for name in ("query", "key", "value", "scores"):
            low, high = static_range(seen[name], "mse", self.activation_bits, False)
            products.set_submodule(name, self.uniform(low, high, dtype))
        stored = dtype_name(preferred_dtype(dtype))
        one = torch.ones((), device=seen["query"].extremes.device)
        products.probabilities = LogQuantizer(self.attention_bits, scale_dtype=stored).set_steps(one)

    def _quantize_norms(self, subject: Subject, seen: Observed) -> None:
        stored = dtype_name(preferred_dtype(subject.dtype))
        for name, values in seen.items():
            sample, (low, high) = values.sample, values.extremes.unbind()
            quantizer = PowerOfTwoQuantizer(self.norm_bits, channels=sample.shape[1], scale_dtype=stored)
            fitted = quantizer.to(low.device).fit(sample, low, high)
            subject.replace(name, RoundedNorm.around(subject.model.get_submodule(name), fitted))


def _gelus(model: nn.Module) -> list[str]:
    """Full names of the modules that compute GELU itself."""
    return [name for name, module in model.named_modules() if type(module).__name__ in ("GELU", "GELUActivation")]
