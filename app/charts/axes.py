"""Quantities as chart axes: titles, units, directions and number formats."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from app.text import formats
from core.analysis.decision.limits import Limit
from core.quantities import SCORE, Quantity, Shown, Unit, in_sentence, shown_in
from core.scores import decimals

SAME = 1e-9  # in units of the last place: rounding error of a division
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
    decimals: int | None = None  # that `read` shows; None: three significant digits

    @property
    def low(self) -> str:
        """The column with the lower end of its 95 % interval, if it has one."""
        return f"{self.column}_low"

    @property
    def high(self) -> str:
        """The column with the upper end of its 95 % interval."""
        return f"{self.column}_high"

    @property
    def words(self) -> str:
        """Its title within a sentence."""
        return in_sentence(self.title)

    @property
    def head(self) -> str:
        """Its short name, for narrow columns."""
        return self.short or self.title

    def limit(self, bound: float) -> Limit:
        """The limit whose worst allowed value is `bound`, in the stored unit."""
        return Limit(self.column, "at most" if self.better == "less" else "at least", bound)

    def read_rounded(self, value: float, *, up: bool) -> str:
        """A value with its unit, rounded up or down: rounded up, it is a limit "at most" that the value still meets."""
        if value == 0 or (self.units in (BYTES, COUNTS) and abs(value) < 1000):
            return self.read(value)  # whole numbers, all of whose digits are shown
        places = 2 - math.floor(math.log10(abs(value))) if self.decimals is None else self.decimals
        last_place = 10.0**-places
        steps = value / last_place
        return self.read(last_place * (math.ceil(steps - SAME) if up else math.floor(steps + SAME)))

    def unit_for(self, largest: float) -> tuple[float, str]:
        """The factor and unit that suit values up to `largest`."""
        fitting = [unit for unit in self.units if largest >= unit[0]]
        return fitting[-1] if fitting else self.units[0]


BYTES = ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"))
COUNTS = ((1.0, ""), (1e3, "thousand"), (1e6, "million"), (1e9, "billion"))
TIMES = ((1.0, "ms"), (1e3, "s"))
SCALES = {
    Unit.BYTES: BYTES,
    Unit.COUNT: COUNTS,
    Unit.MILLISECONDS: TIMES,
    Unit.RATIO: ((1.0, "×"),),
    Unit.COSINE: ((1.0, ""),),
    Unit.NUMBER: ((1.0, ""),),
    Unit.NATS: ((1.0, "nats"),),
    Unit.PERCENT: ((1.0, "%"),),
}
DECIMALS = {Unit.PERCENT: formats.PERCENT_DECIMALS, Unit.COSINE: formats.COSINE_DECIMALS}


def _axis(quantity: Quantity) -> Axis:
    places = DECIMALS.get(quantity.unit)
    read, scale = formats.READERS[quantity.unit], SCALES[quantity.unit]
    return Axis(quantity.name, quantity.title, read, quantity.better, scale, quantity.log, quantity.head, places)


AXES = {quantity.name: _axis(quantity) for quantity in shown_in(Shown.AXIS) if quantity is not SCORE}


def score_axis(name: str, unit: str, higher_is_better: bool) -> Axis:
    """The axis of a task's principal score."""
    return Axis(
        SCORE.name,
        name.capitalize(),
        lambda value: formats.score(value, unit),
        "more" if higher_is_better else "less",
        ((1.0, unit),),
        SCORE.log,
        decimals=decimals(unit),
    )


def list_axes(score: Axis) -> dict[str, Axis]:
    """All axes by column, in the order of the quantities, for a task with this score."""
    return {quantity.name: AXES.get(quantity.name, score) for quantity in shown_in(Shown.AXIS)}


def select_known(points: pd.DataFrame, *axes: Axis) -> pd.DataFrame:
    """The points that have a value on every axis."""
    return points.dropna(subset=[axis.column for axis in axes])
