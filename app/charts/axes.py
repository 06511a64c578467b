"""The quantities that a chart may show: their titles, units, directions and how one value reads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from app.text import formats

NUMBER = ",.6~f"  # how an axis writes numbers: never with an exponent


@dataclass(frozen=True)
class Axis:
    """A quantity of a point; `column` is its name in the store."""

    column: str
    title: str
    read: Callable[[float], str]  # one value with its unit
    better: Literal["less", "more"]
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)  # factor and unit, ascending
    log: bool = True
    short: str = ""  # its name as the head of a column

    @property
    def low(self) -> str:
        """The column of its 95 % interval's lower end, where points have one."""
        return f"{self.column}_low"

    @property
    def high(self) -> str:
        """The column of its 95 % interval's upper end."""
        return f"{self.column}_high"

    @property
    def head(self) -> str:
        """Its name where there is little room."""
        return self.short or self.title

    def unit_for(self, largest: float) -> tuple[float, str]:
        """Factor and unit in which values up to `largest` read best."""
        fitting = [unit for unit in self.units if largest >= unit[0]]
        return fitting[-1] if fitting else self.units[0]


BYTES = ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"))
COUNTS = ((1.0, ""), (1e3, "thousand"), (1e6, "million"), (1e9, "billion"))
TIMES = ((1.0, "ms"), (1e3, "s"))

_AXES = (
    Axis("size_bytes", "Size", formats.size, "less", BYTES),
    Axis("p50_ms", "Latency (median)", formats.milliseconds, "less", TIMES, short="Latency p50"),
    Axis("p95_ms", "Latency (95th percentile)", formats.milliseconds, "less", TIMES, short="p95"),
    Axis("macs", "Multiply-accumulates", formats.count, "less", COUNTS, short="MACs"),
    Axis("peak_memory_bytes", "Peak memory", formats.size, "less", BYTES),
    Axis("parameters", "Parameters", formats.count, "less", COUNTS),
    Axis("nonzeros", "Nonzero parameters", formats.count, "less", COUNTS, short="Nonzeros"),
    Axis("compression_ratio", "Compression", formats.ratio, "more", ((1.0, "×"),)),
    Axis("speed_up", "Speed-up", formats.ratio, "more", ((1.0, "×"),)),
)
AXES = {axis.column: axis for axis in _AXES}


def score_axis(name: str, unit: str, higher_is_better: bool) -> Axis:
    """The axis of a task's principal score."""
    return Axis(
        "score",
        name.capitalize(),
        lambda value: formats.score(value, unit),
        "more" if higher_is_better else "less",
        ((1.0, unit),),
        log=False,
    )


def known(points: pd.DataFrame, *axes: Axis) -> pd.DataFrame:
    """The points that have a value on every axis."""
    return points.dropna(subset=[axis.column for axis in axes])
