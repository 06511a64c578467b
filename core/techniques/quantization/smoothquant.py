"""SmoothQuant: move outliers of activations into the weights before both are quantized.

Paper: https://arxiv.org/abs/2211.10438. Each input channel j is divided by s_j = max|X_j|^strength / max|W_j|^(1 -
strength), folded into what makes the channel, and its weights are multiplied by s_j, so the network's function stays.
Layers that read the same channels (q, k and v, or all experts and their router) share s. `activation_scale` chooses the
paper's O1 (per-token), O2 (per-tensor) or O3 (static). As in the authors' code, factors are folded into norms. With
`fold_into: all` they are also folded into values, and into `up` of gated networks. Here weights have a scale for each
output, and products inside of attention are not quantized. Channels that calibration never sees keep their scale.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.channel_scaling import fold_, largest_weights, of_channels
from core.algorithms.quantization_grids import quantize_groups
from core.calibration.statistics import InputMagnitudes, OfExperts, Statistic
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.foldable import Fold, folds
from core.nn.quant_linear import QuantLinear
from core.subject import Subject
from core.technique import INTEGER_CODES, QUANTIZED_ACTIVATIONS, OneShot
from core.techniques.activation_settings import ActivationSettings
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.inputs import quantize_inputs
from core.techniques.quantization.layers import quantizable

_FLOOR = 1e-5


def smoothing_scales(activations: Tensor, weights: Tensor, strength: float) -> Tensor:
    """What each channel is divided by, from the largest magnitudes [..., channels] of its inputs and its weights.

    Channels whose inputs are all zero have 1.
    """
    balanced = activations.clamp_min(_FLOOR).pow(strength) / weights.clamp_min(_FLOOR).pow(1 - strength)
    return torch.where(activations > 0, balanced.clamp_min(_FLOOR), 1.0)


class Smoothquant(ActivationSettings, GridSettings, OneShot):
    """Scale outliers of activations down and their weights up, then quantize both."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2211.10438"
    leaves = frozenset({INTEGER_CODES, QUANTIZED_ACTIVATIONS})
    refuses = {INTEGER_CODES: "Integer codes cannot be scaled: put smoothquant before the step that quantizes."}

    bits: int = Field(8, ge=2, le=8, description="bits per weight")
    strength: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the difficulty that moves from activations to weights (the paper's alpha)",
    )
    fold_into: Literal["norms", "all"] = Field(
        "norms", description="what the factors are folded into; all: also values, and up of gated networks"
    )
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits of weights and activations, how activations are scaled, and the strength."""
        return f"W{self.bits} {self.activation_label()} {self.strength:g}"

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless there are dense layers, and a place whose channels can be scaled."""
        names = quantizable(subject, self.include_head, self.skip)
        if not self.places(subject, names):
            message = "has no norm before linear layers that factors could be folded into"
            remedy = "Use activation_quantization, or a Transformer with norms before attention."
            raise SpecError.of("model.source", type(subject.model).__name__, message, remedy)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Smooth block by block, then quantize."""
        names = quantizable(subject, self.include_head, self.skip)
        smoothed = self._smooth(subject, context, names)
        rough = [name for name in names if name not in smoothed]
        if rough:
            shown = ", ".join(rough[:8]) + (", ..." if len(rough) > 8 else "")
            message = f"{len(rough)} of {len(names)} layers are not smoothed, since nothing before them takes factors"
            context.record.event("info", f"{message}: {shown}")
        quantize_inputs(subject, context, names, self, self.pack)
        for row in subject.details["layers"]:
            row["smoothed by up to"] = smoothed.get(row["name"], 1.0)

    def places(self, subject: Subject, names: Sequence[str]) -> list[Fold]:
        """Where factors are folded: places whose consumers are all quantized."""
        found = [fold for fold in folds(subject.model) if set(fold.consumers) <= set(names)]
        return [fold for fold in found if fold.is_norm or self.fold_into == "all"]

    def pack(self, linear: nn.Linear) -> QuantLinear:
        """The integer weights nearest to those of `linear`."""
        weight = linear.weight.float()
        return self.scheme(self.bits).pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size))

    def _smooth(self, subject: Subject, context: Context, names: Sequence[str]) -> dict[str, float]:
        """Fold the factors, and return the largest of each layer that is smoothed."""
        places = self.places(subject, names)
        watched = [name for fold in places for name in fold.consumers]
        largest: dict[str, Tensor] = {}  # of each input: [1, in], or [experts, in]
        for block in context.blocks(subject, self.calibration_examples, watched):
            for group, statistic in block.statistics(InputMagnitudes):
                largest |= dict.fromkeys(group, _largest_inputs(statistic))
        smoothed: dict[str, float] = {}
        for fold in places:
            seen = [largest[name] for name in fold.consumers if name in largest]
            if not seen:
                continue
            activations = of_channels(fold, seen[0] if not fold.is_norm else torch.cat(seen).amax(0, keepdim=True))
            weights = largest_weights(subject.model, fold, by_expert=not fold.is_norm)
            scales = smoothing_scales(activations, weights.to(activations), self.strength)
            fold_(subject.model, fold, scales.squeeze(0))
            smoothed |= dict.fromkeys(fold.consumers, float(scales.max()))
        return smoothed


def _largest_inputs(statistic: Statistic | OfExperts) -> Tensor:
    """The largest magnitude of each input, [1, in] or [experts, in]; zeros for an expert that no token reached."""
    maxima = statistic.value[..., 1, :]
    if isinstance(statistic, OfExperts):
        maxima[statistic.unreached] = 0
    return maxima
