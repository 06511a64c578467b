"""Recommendations by hand, and against a search that tries every value of every limit."""

import math

import numpy as np
import pytest

from core.analysis.decision.choice import Move, decide
from core.analysis.decision.limits import Limit

SIZE, TIME = "size_bytes", "p50_ms"
#          0     1     2     3     4
VALUES = {
    "score": [97.0, 96.0, 95.0, 80.0, 96.5],
    SIZE: [4000, 1000, 2000, 500, 3000],
    TIME: [4.0, 2.0, 1.0, 5.0, math.nan],
}


def at_most(quantity: str, bound: float) -> Limit:
    return Limit(quantity, "at most", bound)


def best_of(limits, **more):
    return decide(VALUES, limits, higher_is_better=True, **more)


def test_the_best_score_within_the_limits_is_recommended_and_the_next_is_the_runner_up():
    found = best_of([at_most(SIZE, 2500)])
    assert found.feasible.tolist() == [False, True, True, True, False]
    assert (found.best, found.runner_up, found.n_feasible) == (1, 2, 3)


def test_a_value_at_its_limit_keeps_it_whatever_rounding_does():
    assert best_of([at_most(SIZE, 1000)]).best == 1
    assert Limit("score_loss", "at most", 0.5).keeps(97.2 - 96.7)
    assert not Limit("score_loss", "at most", 0.5).keeps(0.500001)
    assert Limit("score", "at least", 95.0).keeps([94.9, 95.0, 95.1]).tolist() == [False, True, True]


def test_what_was_not_measured_keeps_no_limit_on_it_and_is_counted():
    found = best_of([at_most(TIME, 9.0), at_most(SIZE, 3000)])
    assert found.feasible.tolist() == [False, True, True, True, False]
    assert [margin.unmeasured for margin in found.margins] == [1, 0]
    assert best_of([at_most(TIME, 9.0), at_most(SIZE, 2999)]).margins[0].unmeasured == 0  # it fails the size anyway


def test_less_of_a_score_may_be_better():
    found = decide(VALUES, [at_most(SIZE, 2500)], higher_is_better=False)
    assert (found.best, found.runner_up) == (3, 2)


def test_of_equal_scores_the_smaller_is_better():
    values = {"score": [90.0, 90.0, 90.0], SIZE: [30, 10, 10]}
    found = decide(values, [], higher_is_better=True)
    assert (found.best, found.runner_up) == (1, 2)


def test_moving_a_limit_passes_over_what_changes_nothing():
    [margin] = best_of([at_most(SIZE, 2500)]).margins
    # From 2500 down to 1000 stage 1 stays the best; below it only stage 3 is left, 16 points worse.
    assert margin.tighter == Move(1000.0, 3, -16.0)
    assert margin.looser == Move(3000.0, 4, 0.5)


def test_each_limit_is_moved_while_the_others_stay():
    size, time = best_of([at_most(SIZE, 2500), at_most(TIME, 1.5)]).margins
    assert (size.tighter, size.looser) == (Move(2000.0, None), None)  # the larger ones are too slow
    assert time.looser == Move(2.0, 1, 1.0)
    assert time.tighter == Move(1.0, None)


def test_a_lower_limit_is_moved_the_other_way():
    [margin] = best_of([Limit("score", "at least", 96.8)]).margins
    assert (margin.tighter, margin.looser) == (Move(97.0, None), None)


def test_where_nothing_keeps_all_limits_each_says_what_it_alone_would_allow():
    found = best_of([at_most(SIZE, 700), Limit("score", "at least", 96.0)])
    assert (found.best, found.runner_up, found.n_feasible) == (None, None, 0)
    size, score = found.margins
    assert (size.tighter, size.looser) == (None, Move(1000.0, 1))
    assert score.looser == Move(80.0, 3)


def test_a_weight_says_what_halving_is_worth():
    # Stage 1 is a quarter of stage 0 and one point worse: two halvings, worth it from half a point each.
    assert best_of([], weights={SIZE: 0.49}).best == 0
    assert best_of([], weights={SIZE: 0.51}).best == 1
    assert best_of([], weights={TIME: 0.1}).feasible.tolist() == [True, True, True, True, False]  # nothing to weigh
    in_kilobytes = {**VALUES, SIZE: [size / 1000 for size in VALUES[SIZE]]}
    for weight in (0.2, 0.6, 5.0):
        scaled = decide(in_kilobytes, [], {SIZE: weight}, higher_is_better=True)
        assert scaled.best == best_of([], weights={SIZE: weight}).best


def test_a_weight_helps_what_is_less_where_less_score_is_better_too():
    values = {"score": [2.0, 2.1], SIZE: [400, 100]}
    assert decide(values, [], {SIZE: 0.04}, higher_is_better=False).best == 0
    assert decide(values, [], {SIZE: 0.06}, higher_is_better=False).best == 1


def test_a_loss_that_may_be_chance_counts_only_where_it_is_asked_to():
    values = {"score": [96.0, 95.0], SIZE: [2, 1], "score_loss": [0.9, 1.9]}
    tests = {"score_loss": [0.3, 0.01]}
    strict = Limit("score_loss", "at most", 0.5)
    lenient = Limit("score_loss", "at most", 0.5, significant_only=True)
    assert decide(values, [strict], higher_is_better=True, p_values=tests).best is None
    found = decide(values, [lenient], higher_is_better=True, p_values=tests)
    assert found.feasible.tolist() == [True, False]
    assert found.margins[0].tighter is None  # no bound makes the loss significant
    untested = decide(values, [lenient], higher_is_better=True)
    assert untested.best is None


def test_nothing_to_choose_from():
    found = decide({"score": [], SIZE: []}, [at_most(SIZE, 1)], higher_is_better=True)
    assert (found.best, found.n_feasible) == (None, 0)
    assert (found.margins[0].tighter, found.margins[0].looser) == (None, None)


def test_a_quantity_without_values_is_named():
    with pytest.raises(ValueError, match="no values were recorded for macs, peak_memory_bytes"):
        best_of([at_most("macs", 1)], weights={"peak_memory_bytes": 1.0})


def best_by_search(values, limits, weights, higher):
    """The same by looking at one stage after the other."""
    found = None
    for i in range(len(values["score"])):
        row = {name: column[i] for name, column in values.items()}
        if any(math.isnan(row[name]) for name in {"score", *(limit.quantity for limit in limits), *weights}):
            continue
        if any(row[q] > b if sense == "at most" else row[q] < b for q, sense, b in map(_plain, limits)):
            continue
        utility = (row["score"] if higher else -row["score"]) - sum(w * math.log2(row[q]) for q, w in weights.items())
        if found is None or (-utility, row[SIZE], i) < found:
            found = (-utility, row[SIZE], i)
    return found


def _plain(limit):
    return limit.quantity, limit.sense, limit.bound


@pytest.mark.parametrize("seed", range(40))
def test_every_margin_is_what_trying_all_bounds_finds(seed):
    chance = np.random.default_rng(seed)
    n, higher = int(chance.integers(1, 25)), bool(chance.integers(2))
    values = {name: chance.integers(1, 12, n).astype(float) for name in ("score", SIZE, TIME)}
    values[TIME][chance.random(n) < 0.2] = np.nan
    weights = {SIZE: 1.5} if seed % 3 == 0 else {}
    score = Limit("score", "at least" if higher else "at most", float(chance.integers(3, 9)))
    limits = [at_most(SIZE, float(chance.integers(2, 10))), at_most(TIME, float(chance.integers(2, 10))), score]
    decision = decide(values, limits, weights, higher_is_better=higher)
    now = best_by_search(values, limits, weights, higher)
    assert decision.best == (now and now[2])
    for at, margin in enumerate(decision.margins):
        limit = limits[at]
        turn = 1 if limit.sense == "at most" else -1
        candidates = sorted({turn * v for v in values[limit.quantity] if not math.isnan(v)})

        def moved_to(cost, at=at, limit=limit, turn=turn):
            moved = [*limits[:at], Limit(limit.quantity, limit.sense, turn * cost), *limits[at + 1 :]]
            return best_by_search(values, moved, weights, higher)

        looser = next(
            (
                (turn * c, new[2])
                for c in candidates
                if c > turn * limit.bound and (new := moved_to(c)) and (now is None or new[0] < now[0])
            ),
            None,
        )
        assert (margin.looser and (margin.looser.bound, margin.looser.best)) == looser
        if now is None:
            assert margin.tighter is None
            continue
        assert margin.tighter.bound == values[limit.quantity][now[2]]
        assert moved_to(turn * margin.tighter.bound)[2] == now[2]  # up to there nothing changes
        after = moved_to(turn * margin.tighter.bound - 0.5)
        assert margin.tighter.best == (after and after[2])


def test_a_loss_that_was_not_measured_is_no_chance():
    limit = Limit("score_loss", "at most", 0.5, significant_only=True)
    assert limit.keeps([math.nan, 0.9], [0.3, 0.3]).tolist() == [False, True]
