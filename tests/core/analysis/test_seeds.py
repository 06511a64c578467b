"""Seeds of one recipe as one point: means, intervals by hand, their coverage, and that nothing counts twice."""

import math

import numpy as np
import pytest
from scipy import stats

from core.analysis.seeds import mean_interval, merged, moderated, quantile, standard_errors, welch
from core.paired_tests import Z


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


def test_two_means_are_tested_as_scipy_tests_them():
    chance = np.random.default_rng(0)
    for n, m in ((2, 3), (3, 3), (5, 2), (9, 20)):
        samples = chance.normal(size=n), chance.normal(0.5, 3.0, size=m)
        errors = [float(sample.std(ddof=1)) / math.sqrt(len(sample)) for sample in samples]
        found = welch([float(sample.mean()) for sample in samples], errors, [n - 1, m - 1])
        expected = stats.ttest_ind(*samples, equal_var=False)
        interval = expected.confidence_interval()
        assert found.p_value == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.delta == pytest.approx(samples[0].mean() - samples[1].mean())


def test_a_mean_with_a_known_error_is_tested_against_one_of_seeds_and_against_another():
    normal = welch([96.0, 95.0], [0.3, 0.4], [math.inf, math.inf])
    assert normal.p_value == pytest.approx(2 * stats.norm.sf(2.0))
    assert (normal.low, normal.high) == pytest.approx((1 - Z * 0.5, 1 + Z * 0.5))
    mixed = welch([96.0, 95.0], [0.3, 0.4], [math.inf, 2.0])  # Welch's degrees of freedom: 0.25^2 / (0.16^2 / 2)
    assert mixed.p_value == pytest.approx(2 * stats.t.sf(2.0, 0.25**2 / (0.16**2 / 2)))


def test_exact_means_differ_or_do_not():
    assert welch([1.0, 1.0], [0.0, 0.0], [math.inf, math.inf]).p_value == 1.0
    assert welch([1.0, 1.1], [0.0, 0.0], [math.inf, math.inf]).p_value == 0.0


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
    lows, highs, dfs, own = [low, 0.0, np.nan], [high, 2.0, np.nan], [df, math.inf, math.inf], [np.nan] * 3
    errors, found = standard_errors(*map(np.array, (lows, highs, dfs, own)))
    assert errors == pytest.approx([2 / math.sqrt(3), 1 / 1.959963984540054, 0.0])
    assert found.tolist() == dfs
    assert quantile(math.inf) == pytest.approx(1.96, abs=1e-4)


def test_an_error_between_seeds_is_never_below_the_one_over_the_examples():
    low, high, df = np.array([94.0, 94.0]), np.array([96.0, 96.0]), np.array([2.0, 2.0])
    errors, dfs = standard_errors(low, high, df, np.array([1.1, 0.9]))
    assert errors == pytest.approx([1.1 / 1.959963984540054, 1 / 4.302652729911275])
    assert dfs.tolist() == [math.inf, 2.0]


def test_equal_variances_are_pooled():
    # Two seeds each, all differences 1: no variance of the logarithms beyond chance
    errors, dfs = moderated(np.full(20, 0.5), np.ones(20))
    assert errors == pytest.approx(np.full(20, 0.5))
    assert dfs.tolist() == [20.0] * 20


def test_moderation_is_that_of_smyth():
    # limma's squeezeVar on s² of 4 degrees of freedom: the moments of the logarithms give these two numbers
    chance = np.random.default_rng(0)
    n, d0, common = 4000, 6.0, 0.25
    sigma = np.sqrt(common * d0 / chance.chisquare(d0, n))
    values = chance.normal(0, sigma[:, None], (n, 5))
    variances = values.var(axis=1, ddof=1)
    errors, dfs = moderated(np.sqrt(variances / 5), np.full(n, 4.0))
    assert dfs[0] == pytest.approx(4 + d0, rel=0.1)
    expected = (d0 * common + 4 * variances) / (d0 + 4)
    assert errors**2 * 5 == pytest.approx(expected, rel=0.1)


def test_too_few_recipes_and_exact_values_are_left_as_they_are():
    errors, dfs = np.array([0.1, 0.2, 0.0, 0.3]), np.array([1.0, 2.0, 1.0, math.inf])
    for found, given in zip(moderated(errors, dfs), (errors, dfs), strict=True):
        assert found.tolist() == given.tolist()
    more = moderated(np.append(errors, np.linspace(0.3, 0.5, 18)), np.append(dfs, np.full(18, 2.0)))
    assert more[0][2:4].tolist() == [0.0, 0.3] and more[1][2:4].tolist() == [1.0, math.inf]
    assert more[0][0] != 0.1


def test_a_recipe_was_disturbed_where_the_timing_of_one_seed_was():
    rows = [row(1, 95.0, disturbed=True), row(2, 96.0, seeds=1, disturbed=False), row(3, 90.0, recipe=2)]
    assert [found["disturbed"] for found in merged(rows, QUANTITIES)] == [True, False]
