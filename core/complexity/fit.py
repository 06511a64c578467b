"""The exponent a of a cost that grows as length ** a: the slope of a line through logarithms. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

FITTED = 4  # of the largest lengths: at small ones constant costs hide the growth
FEWEST = 3  # with which a slope has an interval
LEVEL = 0.95


@dataclass(frozen=True)
class Exponent:
    """cost ~ length ** value between the two lengths; `low` and `high` are its 95 % interval."""

    value: float
    low: float
    high: float
    shortest: int
    longest: int


def exponent(lengths: Sequence[int], costs: Sequence[float | None]) -> Exponent | None:
    """Least-squares slope of log cost over log length at the largest lengths, with Student's interval.

    The interval covers noise and curvature: a cost that is not a power of the length has a wide one. None where
    fewer than three costs are known, or one is not positive.
    """
    known = sorted((length, cost) for length, cost in zip(lengths, costs, strict=True) if cost is not None)[-FITTED:]
    if len(known) < FEWEST or min(cost for _, cost in known) <= 0:
        return None
    x, y = np.log(np.array(known, dtype=np.float64)).T
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residuals = y - y.mean() - slope * centred
    freedom = len(known) - 2
    error = float(np.sqrt(residuals @ residuals / freedom / spread))
    reach = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Exponent(slope, slope - reach, slope + reach, known[0][0], known[-1][0])
