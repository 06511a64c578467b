"""Whether each change of a run's score or latency, from one stage to the next, is significant."""

from itertools import pairwise
from typing import Any

import pandas as pd

from app.charts.waterfall import UNTESTED, Certainty
from app.queries import artifacts
from app.queries.compare import load_paired
from app.text import formats
from core.measured import SIGNIFICANT, Comparison

DISTURBED = Certainty(False, "disturbed")
CHANCE = Certainty(False, "not significant: the 95 % intervals overlap")
SURE = Certainty(True, "significant: the 95 % intervals do not overlap")


def judge_scores(stages: pd.DataFrame) -> dict[int, Certainty]:
    """By position, the result of the paired test of a stage against the previous one."""
    return {
        position: Certainty(p_value < SIGNIFICANT, formats.significance(p_value))
        for position, p_value in p_values(stages).items()
    }


def judge_times(stages: pd.DataFrame) -> dict[int, Certainty]:
    """By position, whether a stage is significantly faster or slower than the previous one.

    Both were timed in turn with the reference: the change is significant if the intervals of their relative latencies
    do not overlap, in the direction of the latencies themselves. `stages` are timed, in order.
    """
    rows = stages.to_dict("records")
    certainties = {rows[0]["position"]: DISTURBED} if rows and rows[0]["disturbed"] else {}
    return certainties | {stage["position"]: _certainty(before, stage) for before, stage in pairwise(rows)}


def _certainty(before: dict[str, Any], stage: dict[str, Any]) -> Certainty:
    if before["disturbed"] or stage["disturbed"]:
        return DISTURBED
    was, now = _interval(before), _interval(stage)
    if was is None or now is None or before["reference_stage_id"] != stage["reference_stage_id"]:
        return UNTESTED
    is_apart = now[0] > was[1] if stage["p50_ms"] > before["p50_ms"] else now[1] < was[0]
    return SURE if is_apart else CHANCE


def _interval(stage: dict[str, Any]) -> tuple[float, float] | None:
    """The interval of the relative latency; 1 for the reference itself."""
    if stage["stage_id"] == stage["reference_stage_id"]:
        return 1.0, 1.0
    low, high = stage["ratio_low"], stage["ratio_high"]
    return None if pd.isna(low) or pd.isna(high) else (float(low), float(high))


def p_values(stages: pd.DataFrame) -> dict[int, float]:
    """P-values by position, for stages (in order) whose per-example results and the previous stage's are on this host.

    If the previous stage is the reference, the run's own test counts, which needs no results.
    """
    rows = stages.to_dict("records")
    tested: dict[int, float] = {}
    for before, stage in pairwise(rows):
        if stage["reference_stage_id"] == before["stage_id"] and pd.notna(stage["p_value"]):
            tested[stage["position"]] = float(stage["p_value"])
        elif artifacts.store().is_local:  # a page does not wait for weights to be copied here
            found = load_paired(stage["score_name"], stage["key"], before["key"])
            if isinstance(found, Comparison):
                tested[stage["position"]] = found.p_value
    return tested
