"""How sure each change of a run's score is: paired tests of stages against the one before them."""

from itertools import pairwise

import pandas as pd

from app import artifacts
from app.compare_page.data import load_paired
from core.measured import Comparison


def p_values(stages: pd.DataFrame) -> dict[int, float]:
    """P-values by position, of those stages (in order) whose results by example are on this host with the ones before.

    Against a stage's reference the run's own test counts, which needs no results.
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
