"""The settings of techniques that round weights to uniform grids."""

from typing import Literal

from pydantic import BaseModel, Field

from core.algorithms.quantization_grids import QuantizationScheme, RangeEstimatorName


class GridSettings(BaseModel):
    """The bits, what shares a scale, and how the range of the grid is estimated. Each technique has its default bits.

    The key `observer` is the published name of the range estimator, and recipes carry it. `core/spec/labels.py` has the
    words that people read.
    """

    bits: int | None = Field(ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "group"] = Field(
        "channel", description="weights that share a scale: an output channel's, or a group's"
    )
    group_size: int = Field(128, ge=8, le=4096, description="inputs that share a scale, for granularity: group")
    symmetric: bool = Field(
        True, description="use a grid symmetric about zero; an affine grid fits skewed weights better"
    )
    observer: RangeEstimatorName = Field("min-max", description="range estimator of the grid")
    percentile: float = Field(
        99.9,
        gt=50,
        le=100,
        description="percentile of the weights that sets the upper end of the range, for estimator: percentile",
    )

    def scheme(self, bits: int) -> QuantizationScheme:
        """How weights of so many bits are quantized."""
        group_size = self.group_size if self.granularity == "group" else None
        return QuantizationScheme(bits, self.symmetric, group_size, self.observer, self.percentile)
