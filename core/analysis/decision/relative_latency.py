"""Relative latency of a stage to one that was timed in another run.

A stage is timed alternately with its reference, so drift of the machine cancels out of their ratio. Two stages that
were timed against the same reference are therefore compared by their ratios to it. The logarithm of the quotient has
the interval of a difference of two independent estimates (Zou and Donner, Statistics in Medicine 2008, section 2).
Without a common reference, the two medians are compared.
"""

import math
from dataclasses import dataclass, replace

from core.measured import LatencyRow

Interval = tuple[float, float, float]  # value, low, high
ITSELF = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Timed:
    """A latency with its stage and the reference that it was timed against."""

    row: LatencyRow
    stage_id: int
    reference_id: int | None


def relate_latency(stage: Timed, other: Timed) -> LatencyRow:
    """The stage's latency relative to the `other` stage; without an interval if it is a ratio of medians."""
    value, low, high = _quotient(stage, other) or (stage.row.p50_ms / other.row.p50_ms, None, None)
    return replace(
        stage.row,
        reference_p50_ms=other.row.p50_ms,
        ratio=value,
        ratio_low=low,
        ratio_high=high,
        disturbed=stage.row.disturbed or other.row.disturbed,
    )


def _quotient(stage: Timed, other: Timed) -> Interval | None:
    """The quotient of both ratios to a common reference; None if there is none."""
    for common in (other.stage_id, stage.reference_id, other.reference_id):
        above, below = _ratio_to(common, stage), _ratio_to(common, other)
        if above and below:
            low = math.hypot(math.log(above[0] / above[1]), math.log(below[2] / below[0]))
            high = math.hypot(math.log(above[2] / above[0]), math.log(below[0] / below[1]))
            value = above[0] / below[0]
            return value, value * math.exp(-low), value * math.exp(high)
    return None


def _ratio_to(common: int | None, timed: Timed) -> Interval | None:
    """The ratio of a stage's latency to that of the stage with this id."""
    if timed.stage_id == common:
        return ITSELF
    if common is None or timed.reference_id != common:
        return None
    row = timed.row
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
        return None
    return row.ratio, row.ratio_low, row.ratio_high
