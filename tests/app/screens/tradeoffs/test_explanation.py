"""Decisions in words."""

from typing import Any

from app.charts.axes import AXES, score_axis
from app.screens.tradeoffs import explanation
from core.analysis.decision.choice import Margin, Move
from core.analysis.decision.limits import Limit
from core.measured import Comparison

ALL = {**AXES, "score": score_axis("accuracy", "%", True)}
SIZE = Limit("size_bytes", "at most", 2000)


def point(number: int, size: float, score: float, ms: float | None) -> dict[str, Any]:
    return {
        "stage_id": number, "run_id": 10 + number, "label": f"stage {number}", "model": "builtin:vit", "score": score,
        "size_bytes": size, "p50_ms": ms, "compression_ratio": 4000 / size, "speed_up": 4.0 / ms if ms else None,
    }  # fmt: skip


REFERENCE, BEST = point(1, 4000, 97.0, 4.0), point(2, 1000, 96.0, 2.0)
SECOND, SLOW = point(3, 2000, 95.0, 1.0), point(4, 500, 80.0, 5.0)


def test_the_recommendation_gives_its_reasons():
    assert explanation.recommend(BEST, REFERENCE, 3, ALL) == (
        "**stage 2** of builtin:vit (run 12) is the best of the 3 stages within the limits: accuracy 96.0 % "
        "(−1.0 points vs its reference); 1.00 kB (4.00× smaller); 2.00 ms (2.00× faster)."
    )
    assert "is the best compromise of the 3 stages" in explanation.recommend(BEST, None, 3, ALL, weighed=True)


def test_the_recommendation_says_where_the_runner_up_may_be_as_good():
    close, sure = (Comparison(-1.0, -3.0, 1.0, p) for p in (0.05, 0.049))
    told = explanation.recommend(BEST, REFERENCE, 3, ALL, tested=close)
    assert told.endswith(". Accuracy does not differ significantly from the runner-up's: p = 0.050.")
    assert "significantly" not in explanation.recommend(BEST, REFERENCE, 3, ALL, tested=sure)


def test_times_that_something_disturbed_are_named_with_the_remedy():
    unsure, sure = {**BEST, "disturbed": True}, {**SECOND, "disturbed": False}
    assert explanation.describe_disturbed([sure, REFERENCE]) == ""
    assert explanation.describe_disturbed([unsure, sure, unsure]) == (
        "The machine was busy while **stage 2** of builtin:vit (run 12) was timed. "
        "Requeue on an idle machine to confirm the latency."
    )
    several = explanation.describe_disturbed([unsure, {**SECOND, "disturbed": True}, {**SLOW, "disturbed": True}])
    assert "(run 12), **stage 3** of builtin:vit (run 13) and **stage 4** of builtin:vit (run 14) were timed" in several


def test_seeds_are_named_with_their_runs():
    best = {**BEST, "n_seeds": 3, "runs": "12, 15, 18"}
    told = explanation.recommend(best, REFERENCE, 4, ALL, kind="recipe")
    assert told.startswith("**stage 2** of builtin:vit (mean of 3 seeds: runs 12, 15, 18) is the best of the 4 recipes")
    assert "(run 12)" in explanation.recommend({**BEST, "n_seeds": 1}, REFERENCE, 4, ALL, kind="recipe")
    margin = Margin(SIZE, tighter=Move(1000.0, None), looser=None, unmeasured=2)
    told = explanation.describe_move(margin, {}, best, ALL, kind="recipe")
    assert "no recipe meets all limits; 2 recipes meet the other limits" in told


def test_the_recommendation_tells_what_got_worse_too():
    best = {**SLOW, "compression_ratio": 0.5, "p50_ms": None}
    text = explanation.recommend(best, REFERENCE, 1, ALL)
    assert "the only stage" in text and "(2.00× larger)" in text and "ms" not in text
    assert "(it is the reference itself)" in explanation.recommend(REFERENCE, REFERENCE, 1, ALL)


def test_the_runner_up_is_told_by_its_differences_from_the_best():
    text = (
        "Runner-up: **stage 3** of builtin:vit (run 13): accuracy 95.0 % (−1.0 points{}); 2.00× larger; 2.00× faster."
    )
    assert explanation.describe_runner_up(SECOND, BEST, ALL, None) == text.format("")
    chance = Comparison(-1.0, -3.0, 1.0, 0.33)
    assert explanation.describe_runner_up(SECOND, BEST, ALL, chance) == text.format(", not significant: p = 0.330")
    sure = Comparison(-1.0, -1.5, -0.5, 1e-5)
    assert explanation.describe_runner_up(SECOND, BEST, ALL, sure) == text.format(r", significant: p \< 0.001")
    untimed = {**SECOND, "p50_ms": None, "size_bytes": 1000}
    assert explanation.describe_runner_up(untimed, BEST, ALL, None).endswith("(−1.0 points).")


def test_moving_a_limit_names_what_would_be_recommended_instead():
    margin = Margin(SIZE, tighter=Move(1000.0, 4, -16.0), looser=Move(4000.0, 1, 1.0), unmeasured=0)
    assert explanation.describe_move(margin, {1: REFERENCE, 2: BEST, 4: SLOW}, BEST, ALL) == (
        "Size at most 2.00 kB: at **4.00 kB** or more, **stage 1** of builtin:vit (run 11) with 97.0 % (+1.0 points); "
        "below **1.00 kB**, **stage 4** of builtin:vit (run 14) with 80.0 % (−16.0 points)."
    )


def test_a_lower_limit_is_moved_the_other_way_and_gaps_are_told():
    margin = Margin(Limit("score", "at least", 95.0), tighter=Move(96.0, None), looser=None, unmeasured=0)
    assert explanation.describe_move(margin, {2: BEST}, BEST, ALL) == (
        "Accuracy at least 95.0 %: relaxing it alone finds nothing better; above **96.0 %**, no stage meets all limits."
    )
    latency = Margin(Limit("p50_ms", "at most", 1.0), tighter=None, looser=None, unmeasured=1)
    assert explanation.describe_move(latency, {}, None, ALL) == (
        "Latency (median) at most 1.00 ms: relaxing it alone is not enough; 1 stage meets the other limits but has no "
        "measured latency (median)."
    )


def test_what_is_missing_to_keep_all_limits_is_told():
    margin = Margin(SIZE, tighter=None, looser=Move(4000.0, 1), unmeasured=2)
    assert explanation.describe_move(margin, {1: REFERENCE}, None, ALL) == (
        "Size at most 2.00 kB: at **4.00 kB** or more, **stage 1** of builtin:vit (run 11) with 97.0 %; "
        "2 stages meet the other limits but have no measured size."
    )


def test_names_are_no_markdown():
    hostile = {**SECOND, "label": "[x](javascript:alert(1))", "model": "**b** <img>"}
    margin = Margin(SIZE, tighter=None, looser=Move(4000.0, 3), unmeasured=0)
    for text in (
        explanation.describe_runner_up(hostile, BEST, ALL, None),
        explanation.describe_move(margin, {3: hostile}, BEST, ALL),
    ):
        assert r"\[x\](javascript" in text and r"\*\*b\*\* \<img\>" in text
