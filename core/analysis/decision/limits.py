"""A limit on one measured quantity."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.measured import SIGNIFICANT

ROUNDING = 1e-9  # of the bound: 97.2 - 96.7 is no more than 0.5

Sense = Literal["at most", "at least"]


@dataclass(frozen=True)
class Limit:
    """The worst allowed value of a quantity, in the unit of the store.

    The single rule for charts, decisions and gates: it compares the exact measured value, not the rounded one on the
    page, with the bound as entered. A stage of 4,104,000 bytes is shown as 4.10 MB and exceeds 4.1 MB.

    With `significant_only`, a value beyond the bound counts only if its paired test gives p < 0.05.
    """

    quantity: str  # "size_bytes"
    sense: Sense
    bound: float
    significant_only: bool = False

    def costs(self, values: ArrayLike) -> NDArray[np.float64]:
        """Values [...] turned so that less is better; NaN stays."""
        turned = np.asarray(values, dtype=float)
        return turned if self.sense == "at most" else -turned

    def keeps(self, values: ArrayLike, p_values: ArrayLike = np.nan) -> NDArray[np.bool_]:
        """Which values [...] are within the limit. Values that were not measured (NaN) are not."""
        known = ~np.isnan(np.asarray(values, dtype=float))
        within = self.costs(values) <= self.costs(self.bound) + self.slack
        return known & (within | self.exempt(p_values))

    def exempt(self, p_values: ArrayLike) -> NDArray[np.bool_]:
        """Which values [...] may be due to chance, and are therefore within any bound."""
        p = np.asarray(p_values, dtype=float)
        return (p >= SIGNIFICANT) if self.significant_only else np.zeros(p.shape, dtype=bool)

    @property
    def slack(self) -> float:
        """The tolerance within which a value counts as equal to the bound."""
        return ROUNDING * abs(self.bound)
