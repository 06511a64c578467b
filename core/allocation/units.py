"""What budgets are in: names for people."""

from typing import NamedTuple

from core.allocation.table import BudgetUnit


class UnitWords(NamedTuple):
    """A unit's title and symbol."""

    title: str
    symbol: str


UNITS: dict[BudgetUnit, UnitWords] = {
    "average-bits": UnitWords("Average bits per weight, with scales", "bits"),
    "megabytes": UnitWords("Size of all tensors", "MB"),
    "bit-operations": UnitWords("Bit operations per example", "billion"),
    "milliseconds": UnitWords("Time of the layers' kernels", "ms"),
}
