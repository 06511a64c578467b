"""Latencies of two runs put beside one another, by hand and by simulation."""

import math

import numpy as np
import pytest

from core.analysis.decision.relative_latency import Timed, relate_latency
from core.paired_tests import Z
from tests.factories import latency

DENSE, OTHER = 1, 2


def timed(stage_id: int, reference_id: int | None, ratio: float | None, spread: float = 1.1, p50_ms: float = 2.0):
    """A latency whose ratio's interval reaches from ratio / spread to ratio * spread."""
    ends = (None, None) if ratio is None else (ratio / spread, ratio * spread)
    row = latency(p50_ms=p50_ms, ratio=ratio, ratio_low=ends[0], ratio_high=ends[1])
    return Timed(row, stage_id, reference_id)


def test_two_that_were_timed_beside_one_reference_are_compared_by_their_ratios_to_it():
    # The machine was twice as slow in the second run: the medians would call the stage slower, the ratios do not.
    stage, champion = timed(7, DENSE, 0.4, 1.02, p50_ms=8.0), timed(5, DENSE, 0.5, 1.03, p50_ms=5.0)
    row = relate_latency(stage, champion)
    assert (row.p50_ms, row.reference_p50_ms) == (8.0, 5.0)
    assert row.ratio == pytest.approx(0.8)
    spread = math.exp(math.hypot(math.log(1.02), math.log(1.03)))
    assert (row.ratio_low, row.ratio_high) == (pytest.approx(0.8 / spread), pytest.approx(0.8 * spread))


def test_each_end_of_the_interval_takes_the_other_ones_opposite_end():
    stage = Timed(latency(ratio=1.0, ratio_low=0.9, ratio_high=1.0), 7, DENSE)
    champion = Timed(latency(ratio=1.0, ratio_low=1.0, ratio_high=1.25), 5, DENSE)
    row = relate_latency(stage, champion)
    assert row.ratio_low == pytest.approx(math.exp(-math.hypot(math.log(1 / 0.9), math.log(1.25))))
    assert row.ratio_high == pytest.approx(1.0)


def test_a_stage_timed_beside_the_champion_keeps_its_own_ratio():
    row = relate_latency(timed(7, 5, 0.9), timed(5, DENSE, 0.5))
    assert (row.ratio, row.ratio_low, row.ratio_high) == pytest.approx((0.9, 0.9 / 1.1, 0.9 * 1.1))


def test_the_champions_reference_is_held_against_it_the_other_way_round():
    row = relate_latency(timed(DENSE, None, None), timed(5, DENSE, 0.5))
    assert (row.ratio, row.ratio_low, row.ratio_high) == pytest.approx((2.0, 2.0 / 1.1, 2.0 * 1.1))


@pytest.mark.parametrize(
    ("stage", "champion"),
    [
        (timed(7, DENSE, 0.4, p50_ms=3.0), timed(5, OTHER, 0.5, p50_ms=2.0)),
        (timed(7, None, 0.4, p50_ms=3.0), timed(5, None, 0.5, p50_ms=2.0)),  # who knows beside what
        (timed(7, DENSE, None, p50_ms=3.0), timed(5, DENSE, 0.5, p50_ms=2.0)),
    ],
)
def test_without_a_common_reference_it_is_the_quotient_of_medians_without_interval(stage, champion):
    row = relate_latency(stage, champion)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (1.5, None, None)


def test_the_interval_covers_at_its_rate():
    """Log-normal errors of known size in both ratios: 95 % of the intervals hold the true quotient."""
    chance = np.random.default_rng(0)
    n, errors = 4000, (0.02, 0.05)
    hits = 0
    for noise in chance.normal(size=(n, 2)):
        found = [ratio * math.exp(z * error) for ratio, z, error in zip((0.4, 0.5), noise, errors, strict=True)]
        rows = [
            timed(number, DENSE, ratio, math.exp(Z * error))
            for number, ratio, error in zip((7, 5), found, errors, strict=True)
        ]
        row = relate_latency(*rows)
        hits += row.ratio_low <= 0.8 <= row.ratio_high
    assert hits / n == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("which", [(True, False), (False, True)])
def test_what_disturbed_either_disturbed_their_comparison(which):
    stage, champion = (Timed(latency(ratio=None, disturbed=was), 1, None) for was in which)
    assert relate_latency(stage, champion).disturbed
