"""Parses quantities with units, such as "1 MB" and "2 ms", to the units of the store."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import SpecError

BYTES = {
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
NATS = {"": 1.0, "nats": 1.0, "bits": math.log(2)}
PERCENT = {"": 1.0, "%": 1.0}

_AMOUNT = re.compile(r"\s*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(\S.{0,20}?)?\s*")


@dataclass(frozen=True)
class Amount:
    """A number with its unit; without one, the unit of the quantity that it is compared with applies."""

    value: float
    unit: str = ""


def read(value: object) -> Amount:
    """The number and the unit of "1 MB", or of a plain number; raises SpecError for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Amount(_finite(value, value))
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise SpecError.of(
            "", value, "is not a quantity with a unit", "Write a number and its unit, such as 1.5 MB, 2 ms or 95 %."
        )
    return Amount(_finite(found[1], value), found[2] or "")


def scaled(value: object, units: Mapping[str, float], *, may_be_zero: bool = False) -> float:
    """A positive amount in the unit with factor 1; raises SpecError for another or a missing unit."""
    amount = read(value)
    choice = ", ".join(name for name in units if name and name != "μs")
    if amount.unit not in units:
        message = f"has the unknown unit {amount.unit!r}" if amount.unit else "has no unit"
        raise SpecError.of("", value, message, f"Write the number with one of {choice}.")
    number = amount.value * units[amount.unit]
    if not 0 <= number < math.inf or (number == 0 and not may_be_zero):
        least = "at least 0" if may_be_zero else "above zero"
        raise SpecError.of("", value, f"must be {least} and finite", "Write a larger or smaller number.")
    return number


def _finite(number: object, written: object) -> float:
    try:
        found = float(number)  # type: ignore[arg-type]
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise SpecError.of("", written, "is not a finite number", "Write a number.")
    return found
