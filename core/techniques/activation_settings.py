"""The settings of techniques that round activations to integers."""

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from core.algorithms.activation_ranges import ActivationObserverName, static_quantizer, static_range
from core.calibration.activations import ActivationValues
from core.nn.activation_quantizer import ActivationQuantizer, ActivationScale


class ActivationSettings(BaseModel):
    """The bits of a layer's inputs, when their scale is known, and how a static one is calibrated."""

    activation_bits: int = Field(8, ge=2, le=8, description="bits per activation")
    activation_symmetric: bool = Field(
        True, description="use a grid symmetric about zero; an affine grid fits one-sided activations better"
    )
    activation_scale: ActivationScale = Field(
        "per-token",
        description="static: one scale from calibration data; per-tensor or per-token: computed at run time from the "
        "whole batch or from each token",
    )
    activation_observer: ActivationObserverName = Field(
        "mse", description="range estimator of the activations, for activation_scale: static"
    )
    activation_percentile: float = Field(
        99.99,
        gt=50,
        le=100,
        description="percentile of the activations that sets both ends of the range, for that estimator",
    )
    calibration_examples: int = Field(
        128, ge=1, le=100_000, description="number of calibration examples, for activation_scale: static"
    )

    @property
    def is_static(self) -> bool:
        """Whether scales come from calibration data."""
        return self.activation_scale == "static"

    def activation_label(self) -> str:
        """The bits of activations, and what is not the default about their scale."""
        parts = [f"A{self.activation_bits}", self.activation_scale, "" if self.activation_symmetric else "affine"]
        return " ".join(filter(None, [*parts, self.activation_observer if self.is_static else ""]))

    def quantizer(self, dtype: torch.dtype, values: ActivationValues | None = None) -> ActivationQuantizer:
        """The quantizer of one layer's inputs in a model of this dtype; a static one needs the `values` it has seen."""
        if not self.is_static:
            return ActivationQuantizer(
                self.activation_bits, symmetric=self.activation_symmetric, scale=self.activation_scale
            )
        assert values is not None, "a static scale needs calibration"
        return static_quantizer(self.activation_bits, self.activation_symmetric, *self.range_of(values), dtype)

    def range_of(self, values: ActivationValues) -> tuple[Tensor, Tensor]:
        """The static range that the estimator chooses for what calibration has seen."""
        observer, bits, symmetric = self.activation_observer, self.activation_bits, self.activation_symmetric
        return static_range(values, observer, bits, symmetric, self.activation_percentile)
