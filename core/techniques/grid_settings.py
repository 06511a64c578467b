"""The settings of techniques that round weights to uniform grids."""

from typing import Literal

from pydantic import BaseModel, Field

from core.algorithms.quantization_grids import QuantizationScheme, RangeEstimatorName

SYMMETRIC = Field(True, description="use a grid symmetric about zero; an affine grid fits skewed weights better")


class GroupSettings(BaseModel):
    """The bits, and what shares a scale. Each technique has its default bits."""

    bits: int | None = Field(ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "group"] = Field(
        "channel", description="weights that share a scale: an output channel's, or a group's"
    )
    group_size: int = Field(128, ge=8, le=4096, description="inputs that share a scale, for granularity: group")

    def inputs_per_scale(self) -> int | None:
        """How many inputs of an output channel share a scale; None: all."""
        return self.group_size if self.granularity == "group" else None

    def shared_scale(self) -> str:
        """What shares a scale, for labels."""
        return f"per group of {self.group_size}" if self.granularity == "group" else "per channel"


class GridSettings(GroupSettings):
    """The bits, what shares a scale, and how the range of the grid is estimated without data.

    The key `observer` is the published name of the range estimator, and recipes carry it. `core/spec/labels.py` has the
    words that people read.
    """

    symmetric: bool = SYMMETRIC
    observer: Literal["min-max", "percentile", "mse"] = Field("min-max", description="range estimator of the grid")
    percentile: float = Field(
        99.9,
        gt=50,
        le=100,
        description="percentile of the weights that sets the upper end of the range, for estimator: percentile",
    )

    def scheme(self, bits: int) -> QuantizationScheme:
        """How weights of so many bits are quantized."""
        return QuantizationScheme(bits, self.symmetric, self.inputs_per_scale(), self.observer, self.percentile)

    def grid_label(self) -> str:
        """The bits, what shares a scale, and the range estimator where it is not min-max."""
        parts = [f"{self.bits}-bit", self.shared_scale(), "" if self.symmetric else "affine"]
        return " ".join([*filter(None, parts), *([self.observer] if self.observer != "min-max" else [])])


class CalibratedGridSettings(GridSettings):
    """The same for techniques that see inputs: their mean squares can weigh the errors of the weights (imatrix)."""

    observer: RangeEstimatorName = Field(  # type: ignore[assignment]
        "min-max", description="range estimator of the grid; imatrix weighs errors by the mean square of their inputs"
    )
