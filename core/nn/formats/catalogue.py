"""The number formats by name."""

from dataclasses import dataclass
from typing import Literal

from core.nn.formats.elements import (
    BINARY_TYPE,
    E2M1_TYPE,
    E4M3_TYPE,
    E5M2_TYPE,
    NF4_TYPE,
    TERNARY_TYPE,
    ElementType,
)
from core.nn.formats.scales import DoubleQuantizedScales, FloatScales, PowerOfTwoScales, TwoLevelScales

FormatName = Literal[
    "fp8_e4m3", "fp8_e5m2", "mxfp8", "mxfp4", "nvfp4", "nf4", "nf4_double", "ternary", "binary"
]  # nf4_double: with double quantization


@dataclass(frozen=True)
class NumberFormat:
    """Codes of an element type times the scales of blocks."""

    title: str
    element: ElementType
    scales: FloatScales
    block: int | None = None  # consecutive inputs of an output channel that share a scale; None: a matter of choice

    @property
    def has_zero(self) -> bool:
        """Whether pruned weights can stay zero."""
        return self.element is not BINARY_TYPE


FORMATS: dict[FormatName, NumberFormat] = {
    "fp8_e4m3": NumberFormat("FP8 E4M3", E4M3_TYPE, FloatScales()),
    "fp8_e5m2": NumberFormat("FP8 E5M2", E5M2_TYPE, FloatScales()),
    "mxfp8": NumberFormat("MXFP8", E4M3_TYPE, PowerOfTwoScales(), block=32),
    "mxfp4": NumberFormat("MXFP4", E2M1_TYPE, PowerOfTwoScales(), block=32),
    "nvfp4": NumberFormat("NVFP4", E2M1_TYPE, TwoLevelScales(), block=16),
    "nf4": NumberFormat("NF4", NF4_TYPE, FloatScales(), block=64),
    "nf4_double": NumberFormat("NF4 with double quantization", NF4_TYPE, DoubleQuantizedScales(), block=64),
    "ternary": NumberFormat("ternary", TERNARY_TYPE, FloatScales()),
    "binary": NumberFormat("binary", BINARY_TYPE, FloatScales()),
}
