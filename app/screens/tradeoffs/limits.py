"""The limits of Trade-offs: their URL parameters, and the units in which people type them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core.quantities import QUANTITIES, SCORE, Unit

TYPED = {Unit.BYTES: ("MB", 1_000_000), Unit.MILLISECONDS: ("ms", 1), Unit.NATS: ("nats", 1)}


@dataclass(frozen=True)
class LimitField:
    """A limit as typed: its quantity's column, its URL parameter, its label, and its unit's factor."""

    column: str
    name: str
    label: str
    factor: int
    is_timed: bool = False
    is_positive: bool = True

    def bound(self, typed: float) -> float:
        """The typed value in the stored unit: 4.1 MB is 4,100,000 bytes, not the product of two rounded numbers."""
        return float(Decimal(str(typed)) * self.factor)


def list_fields(task: Mapping[str, Any]) -> Iterator[LimitField]:
    """The limits of a task, in the order of the quantities."""
    for quantity in QUANTITIES:
        if quantity is SCORE:
            yield _score_field(task)
        elif quantity.limit:
            unit, factor = TYPED[quantity.unit]
            sense = "at most" if quantity.better == "less" else "at least"
            title = quantity.title.partition(" (")[0]
            yield LimitField(
                quantity.name, quantity.limit, f"{title} {sense} ({unit})", factor, quantity.unit is Unit.MILLISECONDS
            )


def _score_field(task: Mapping[str, Any]) -> LimitField:
    name, unit = task["score_name"], task["score_unit"]
    sense = "at least" if task["higher_is_better"] else "at most"
    label = f"{name.capitalize()} {sense}" + (f" ({unit})" if unit else "")
    return LimitField(SCORE.name, f"limit.{name}", label, 1, is_positive=False)
