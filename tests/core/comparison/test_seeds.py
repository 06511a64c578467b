"""Seeds of one recipe as one point: means, intervals by hand, their coverage, and that nothing counts twice."""

import math

import numpy as np
import pytest

from core.comparison.seeds import mean_interval, merged, quantile, standard_errors


def row(stage_id, score, recipe=1, seeds=0, **changes):
    return {
        "stage_id": stage_id, "run_id": 10 + stage_id, "recipe_hash": recipe, "seeds_hash": seeds, "score": score,
        "score_low": score - 0.5, "score_high": score + 0.5, "size_bytes": 1000, "p50_ms": None,
        "reference_stage_id": None, **changes,
    }  # fmt: skip


QUANTITIES = ("score", "size_bytes", "p50_ms")


def test_three_seeds_by_hand():
    mean, low, high, df = mean_interval([94.0, 96.0, 98.0])
    half = 4.302652729911275 * 2 / math.sqrt(3)  # t of 2 degrees of freedom; the standard deviation is 2
    assert (mean, df) == (96.0, 2.0)
    assert (low, high) == pytest.approx((96 - half, 96 + half))


def test_one_seed_has_its_own_interval():
    assert mean_interval([95.0], [(94.0, 97.0)]) == (95.0, 94.0, 97.0, math.inf)
    assert mean_interval([95.0]) == (95.0, None, None, math.inf)


def test_seeds_that_agree_are_no_surer_than_the_examples_they_share():
    assert mean_interval([95.0, 95.0], [(94.0, 97.0), (93.0, 96.0)]) == (95.0, 93.5, 96.5, math.inf)
    assert mean_interval([95.0, 95.1], [(94.0, 97.0), (94.0, 97.0)])[1:3] == (94.0, 97.0)  # t interval: 94.4 to 95.7
    assert mean_interval([1000, 1000]) == (1000.0, None, None, math.inf)  # exact


def test_the_interval_over_seeds_covers_at_its_rate():
    chance = np.random.default_rng(0)
    for n in (2, 3, 8):
        found = [mean_interval(chance.normal(95, 1, n))[1:3] for _ in range(4000)]
        covered = np.mean([low <= 95 <= high for low, high in found])
        assert covered == pytest.approx(0.95, abs=0.012)


def test_stages_of_one_recipe_are_one_row():
    [found] = merged([row(1, 94.0), row(2, 96.0, seeds=1, size_bytes=2000), row(3, 98.0, seeds=2)], QUANTITIES)
    assert (found["score"], found["score_df"], found["n_seeds"]) == (96.0, 2.0, 3)
    assert (found["stage_id"], found["run_id"], found["runs"]) == (1, 13, "11, 12, 13")
    assert found["size_bytes"] == pytest.approx(4000 / 3)
    assert found["size_bytes_low"] < 1000
    assert found["p50_ms"] is None


def test_a_seed_that_was_computed_again_counts_once_as_it_was_last():
    again = [row(1, 80.0), row(2, 96.0, seeds=1), row(3, 94.0)]
    [found] = merged(again, QUANTITIES)
    assert (found["score"], found["n_seeds"], found["runs"]) == (95.0, 2, "12, 13")
    assert found == merged(again[1:], QUANTITIES)[0]


def test_stages_without_a_recipe_stay_alone():
    found = merged([row(1, 94.0, recipe=None), row(2, 96.0, recipe=None), row(3, 90.0, recipe=2)], QUANTITIES)
    assert [(r["stage_id"], r["score"], r["n_seeds"]) for r in found] == [(1, 94.0, 1), (2, 96.0, 1), (3, 90.0, 1)]
    assert found[0]["score_low"] == 93.5


def test_references_are_named_by_the_row_that_they_became():
    found = merged(
        [row(1, 97.0), row(2, 97.0, seeds=1), row(3, 90.0, recipe=2, reference_stage_id=2)], QUANTITIES
    )  # fmt: skip
    assert found[1]["reference_stage_id"] == 1


def test_a_quantity_that_some_seeds_lack_is_the_mean_of_the_others():
    [found] = merged([row(1, 94.0, p50_ms=2.0), row(2, 94.0, seeds=1)], QUANTITIES)
    assert (found["p50_ms"], found["p50_ms_low"], found["p50_ms_df"]) == (2.0, None, math.inf)


def test_standard_errors_are_those_behind_the_intervals():
    _, low, high, df = mean_interval([94.0, 96.0, 98.0])
    lows, highs, dfs = [low, 0.0, np.nan], [high, 2.0, np.nan], [df, math.inf, math.inf]
    errors = standard_errors(*map(np.array, (lows, highs, dfs)))
    assert errors == pytest.approx([2 / math.sqrt(3), 1 / 1.959963984540054, 0.0])
    assert quantile(math.inf) == pytest.approx(1.96, abs=1e-4)
