"""RepQ-ViT: quantize a Vision Transformer by calibration, without reconstruction.

Paper: https://arxiv.org/abs/2212.08254. What a LayerNorm gives is calibrated with a scale and zero point for each
channel, and runs with one of each: the differences are folded into the norm and the layers after it, so that integer
codes and the network's function stay. Probabilities of attention have levels that are powers of the root of two.
All other inputs of products, those inside of attention included, have one affine grid. Weights have a scale for each
output, of least squared error, chosen after the fold. Products inside of attention run unpacked: size only.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from core.algorithms.activation_ranges import least_error_range, preferred_dtype, static_range
from core.algorithms.layer_norm_scales import reparameterize_
from core.calibration.activations import ActivationValues
from core.context import Context
from core.models.foldable import Fold, folds
from core.nn.activation_quantizer import ActivationQuantizer, activation_grid
from core.nn.attention.products import AttentionProducts
from core.nn.integer_linear import dtype_name
from core.nn.uneven_quantizers import LogQuantizer
from core.subject import Subject
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.vision import (
    Observed,
    VisionQuantization,
    observe,
    products_of,
    swap_attentions,
)

SCALES = tuple(step / 20 for step in range(10, 21))  # of the largest probability


class RepqVit(VisionQuantization):
    """Quantize all that a Vision Transformer multiplies, with scales of channels folded into norms."""

    paper = "https://arxiv.org/abs/2212.08254"

    reparameterize: bool = Field(
        True, description="calibrate what norms give for each channel, and fold the scales; false: one scale"
    )

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Calibrate, fold and quantize block by block, each on what the quantized blocks before it give."""
        names, attentions = quantizable(subject, self.include_head, self.skip), self.attentions(subject)
        found = folds(subject.model) if self.reparameterize else []
        places = {fold.consumers[0]: fold for fold in found if fold.is_norm and set(fold.consumers) <= set(names)}
        swap_attentions(subject, attentions)
        rows = {}
        for block in context.blocks(subject, self.calibration_examples, names):
            seen = observe(subject.model, block, attentions)
            for group, values in block.statistics(ActivationValues):
                assert isinstance(values, ActivationValues)
                quantizer = self._quantizer(subject, group, values, places)
                for name in group:
                    linear = subject.model.get_submodule(name)
                    rows[name] = self.replace(subject, name, quantizer, self.pack(linear))  # type: ignore[arg-type]
            for name, operands in seen.items():
                self._quantize_products(products_of(subject.model, name), operands, subject.dtype)
        subject.details["layers"] = [rows[name] for name in names if name in rows]

    def _quantizer(
        self, subject: Subject, group: Sequence[str], values: ActivationValues, places: dict[str, Fold]
    ) -> ActivationQuantizer:
        """The quantizer of the inputs of a group of layers; after a norm, the norm and the layers change."""
        fold = next((places[name] for name in group if name in places), None)
        if fold is None or set(fold.consumers) != set(group):
            return self.uniform(*static_range(values, "mse", self.activation_bits, False), subject.dtype)
        low, high = values.channels.unbind()
        low, high = least_error_range(values.sample, low, high, self.activation_bits, symmetric=False)
        grid = activation_grid(low, high, self.activation_bits, symmetric=False)
        layers = [subject.model.get_submodule(name) for name in group]
        return reparameterize_(subject.model.get_submodule(fold.producer), layers, grid)  # type: ignore[arg-type]

    def _quantize_products(self, products: AttentionProducts, seen: Observed, dtype: torch.dtype) -> None:
        for name in ("query", "key", "value"):
            low, high = static_range(seen[name], "mse", self.activation_bits, False)
            products.set_submodule(name, self.uniform(low, high, dtype))
        products.probabilities = least_error_log(seen["probabilities"], self.activation_bits, preferred_dtype(dtype))


def least_error_log(values: ActivationValues, bits: int, dtype: torch.dtype) -> LogQuantizer:
    """The quantizer with two levels an octave whose largest level has the least squared error on what was seen."""
    largest, sample = values.extremes[1], values.sample
    quantizer = LogQuantizer(bits, per_octave=2, scale_dtype=dtype_name(dtype))

    def error(factor: float) -> Tensor:
        return (quantizer.set_steps(factor * largest).nearest(sample) - sample).square().mean()

    best = torch.stack([error(factor) for factor in SCALES]).argmin()
    return quantizer.set_steps(torch.tensor(SCALES, device=largest.device)[best] * largest)
