"""Dominance that knows how sure values are: by hand, by a slow oracle, and by simulation of equal models."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from core.analysis.dominance import Dominance, judge_dominance
from core.analysis.pareto import find_frontier
from core.analysis.seeds import mean_interval, standard_errors

FRONTIER, UNDECIDED, DOMINATED = Dominance.FRONTIER, Dominance.UNDECIDED, Dominance.DOMINATED
INF = math.inf


def of(points, errors=0.0, dfs=INF, directions=("min", "max"), counts=None):
    """Standings of (size, score) points; `errors` and `dfs` are those of the score."""
    n = len(points)
    columns = [
        np.column_stack([np.full(n, exact), np.broadcast_to(given, n)]) for exact, given in ((0.0, errors), (INF, dfs))
    ]
    return judge_dominance(points, *columns, directions, counts)


def test_exact_values_make_the_ordinary_frontier():
    points = [[10, 99.0], [5, 98.0], [5, 97.0], [20, 99.0], [1, 50.0], [1, 50.0], [3, math.nan]]
    best = find_frontier(points, ["min", "max"])
    assert of(points) == [FRONTIER if on else DOMINATED for on in best]


def test_two_scores_by_hand():
    # 1.96 of the difference's standard error, which is sqrt(3² + 4²) / 10 = 0.5: 0.98
    for behind, dominance in ((0.97, UNDECIDED), (0.99, DOMINATED)):
        assert of([[1, 95.0], [2, 95.0 - behind]], [0.3, 0.4]) == [FRONTIER, dominance]


def test_few_seeds_decide_less():
    # Welch: t 2.2 at variances 0.08 (2 df) and 0.02 (9 df): 0.1² / (0.08²/2 + 0.02²/9) = 3.08 df, whose t is 3.14
    errors, dfs = np.sqrt([0.08, 0.02]), [2.0, 9.0]
    for t, dominance in ((2.2, UNDECIDED), (3.1, UNDECIDED), (3.2, DOMINATED)):
        assert of([[1, 95.0], [2, 95.0 - t * math.sqrt(0.1)]], errors, dfs) == [FRONTIER, dominance]
        assert of([[1, 95.0], [2, 95.0 - t * math.sqrt(0.1)]], errors) == [FRONTIER, DOMINATED]
    welch = stats.ttest_ind_from_stats(
        0, math.sqrt(0.08 * 3), 3, 3.14 * math.sqrt(0.1), math.sqrt(0.02 * 10), 10, False
    )
    assert welch.pvalue == pytest.approx(0.05, abs=0.001)


def test_every_axis_must_be_significant():
    points, errors = [[1.0, 95.0], [1.1, 80.0]], [[0.1, 0.5], [0.1, 0.5]]
    assert judge_dominance(points, errors, INF, ["min", "max"]) == [FRONTIER, UNDECIDED]  # 0.7 standard errors slower
    points[1][0] = 2.0
    assert judge_dominance(points, errors, INF, ["min", "max"]) == [FRONTIER, DOMINATED]


def test_a_larger_exact_size_alone_decides_nothing():
    assert of([[1, 95.0], [2, 95.0]], 0.5) == [FRONTIER, UNDECIDED]


def test_a_sure_point_off_the_frontier_dominates_where_a_better_one_is_not_sure():
    points, errors = [[1, 95.0], [1, 94.9], [2, 93.0]], [5.0, 0.1, 0.1]
    assert of(points, errors) == [FRONTIER, UNDECIDED, DOMINATED]


def test_the_more_points_might_dominate_the_surer_it_must_be():
    pair = [[1, 95.0], [2, 93.5]]  # 2.12 standard errors apart: p 0.034
    errors = 0.5
    assert of(pair, errors)[1] is DOMINATED
    assert of([*pair, [1.5, 80.0]], errors)[1] is UNDECIDED  # two points are not larger
    assert of([*pair, [2.5, 80.0]], errors)[1] is DOMINATED  # it is larger, so no rival
    assert of(pair, errors, counts=[2, 1])[1] is UNDECIDED  # the first mark stands for two


def slow(points, errors, m):
    """By definition, without pruning, for (exact size, score) of normal standard errors."""
    found = []
    for size, score in points:
        p = [
            2 * stats.norm.sf((other - score) / (errors * math.sqrt(2)))
            for larger, other in points
            if larger <= size and other > score
        ]
        found.append(bool(p) and min(p) * m(size) < 0.05)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_as_defined_where_all_are_equally_sure(seed):
    chance = np.random.default_rng(seed)
    points = np.column_stack([chance.integers(0, 20, 150), chance.normal(90, 2, 150)])
    found = of(points, 0.5)
    expected = slow(points.tolist(), 0.5, lambda size: max(1, (points[:, 0] <= size).sum() - 1))
    assert [dominance is DOMINATED for dominance in found] == expected
    assert {UNDECIDED, DOMINATED} <= set(found)
    on = find_frontier(points, ["min", "max"])
    assert all((dominance is FRONTIER) == best for dominance, best in zip(found, on, strict=True))


def test_of_two_equal_models_one_is_called_dominated_as_often_as_the_level_says():
    chance = np.random.default_rng(1)
    n, trials = 1000, 3000
    score = chance.binomial(n, 0.9, (trials, 2)) / n
    error = np.sqrt(score * (1 - score) / n)
    false = [DOMINATED in of(np.column_stack([[1, 1], s]), e) for s, e in zip(score, error, strict=True)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(("n_models", "n_seeds"), [(2, 3), (40, 1), (40, 2), (40, 4)])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_equal_models_are_falsely_called_dominated_at_most_at_the_level(n_models, n_seeds, spread):
    chance = np.random.default_rng(2)
    false = []
    for _ in range(1000 if n_models == 2 else 250):
        noise = np.exp(chance.normal(0, spread, (n_models, 1)))  # recipes' seeds vary by more or less
        scores = 90 + noise * chance.normal(0, 1, (n_models, n_seeds))
        own = [
            [(v - 1.96 * e, v + 1.96 * e) for v in s] if n_seeds == 1 else ()
            for s, e in zip(scores, noise[:, 0], strict=True)
        ]
        mean, low, high, df = np.array([mean_interval(*told) for told in zip(scores, own, strict=True)]).T
        errors, dfs = standard_errors(low, high, df, np.full(n_models, np.nan))
        false += [s is DOMINATED for s in of(np.column_stack([np.ones(n_models), mean]), errors, dfs)]
    assert np.mean(false) <= 0.05


def test_two_seeds_each_of_many_recipes_tell_a_bad_one():
    chance = np.random.default_rng(6)
    scores = chance.normal(95, 0.3, (60, 2))
    scores[-1] -= 10
    mean, low, high, df = np.array([mean_interval(s) for s in scores]).T
    for errors, dominance in (
        (standard_errors(low, high, df, np.full(60, np.nan)), DOMINATED),
        ((np.abs(scores[:, 0] - scores[:, 1]) / 2, df), UNDECIDED),
    ):  # without the others' variances
        assert of(np.column_stack([np.ones(60), mean]), *errors)[-1] is dominance


def test_uncorrected_pairs_would_call_many_of_a_hundred_equal_models_dominated():
    chance = np.random.default_rng(3)
    pairwise, corrected = [], []
    for _ in range(60):
        scores = chance.normal(90, 1, 100)
        pairwise.append(np.mean([2 * stats.norm.sf((scores.max() - s) / math.sqrt(2)) < 0.05 for s in scores]))
        corrected.append(of(np.column_stack([np.ones(100), scores]), 1.0).count(DOMINATED) / 100)
    assert np.mean(pairwise) > 0.3
    assert 0.001 < np.mean(corrected) < 0.05


def test_a_truly_worse_model_is_found():
    chance = np.random.default_rng(4)
    scores = np.concatenate([chance.normal(90, 0.3, 50), [85.0]])
    assert of(np.column_stack([np.ones(51), scores]), 0.3)[-1] is DOMINATED


def test_a_hundred_thousand_points():
    chance = np.random.default_rng(5)
    size = chance.lognormal(0, 1, 100_000)
    found = of(np.column_stack([size, 90 + 3 * np.log(size) - chance.exponential(5, len(size))]), 0.5)
    assert {dominance: found.count(dominance) > 10 for dominance in Dominance} == dict.fromkeys(Dominance, True)


def test_no_points_and_points_that_do_not_fit():
    assert judge_dominance([], 0.0, INF, ["min", "max"]) == []
    with pytest.raises(ValueError):
        judge_dominance([[1, 2]], 0.0, INF, ["min"])


def test_it_loads_no_torch():
    code = "import sys, core.analysis.dominance; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
