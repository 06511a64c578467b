"""Settings that learned rounding shares: the grid, which layers, and how many examples."""

from pydantic import Field

from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import GridSettings
from core.techniques.quantization.layers import quantizable


class LearnedRounding(OneShot, GridSettings):
    """Base of techniques that learn on calibration data which way each weight is rounded."""

    family = Family.QUANTIZATION
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """The bits, what shares a scale, and the range estimator where it is not min-max."""
        shared = f"per group of {self.group_size}" if self.granularity == "group" else "per channel"
        parts = [f"{self.bits}-bit", shared, "" if self.symmetric else "affine"]
        return " ".join([*filter(None, parts), *([self.observer] if self.observer != "min-max" else [])])

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)
