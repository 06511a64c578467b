"""Each stage's score and time is told against the stage before it, not against the reference."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from app.charts.waterfall import UNTESTED
from app.screens.run.significance import CHANCE, DISTURBED, SURE, judge_scores, judge_times, p_values
from core.artifacts.store import MANIFEST
from core.settings import settings

STAGE = {"score_name": "accuracy", "p_value": None, "reference_stage_id": 1}


def keep(key: str, right: list[int]) -> None:
    """The artifact of a stage, as far as a paired test reads it."""
    folder = settings().home / "artifacts" / key[:2] / key
    folder.mkdir(parents=True)
    save_file({"correct": np.array(right, dtype=np.float32)}, folder / "examples.safetensors")
    (folder / MANIFEST).write_text("{}")


def stages(*changes: dict) -> pd.DataFrame:
    rows = [{**STAGE, "position": n, "stage_id": n, "key": f"{n:064x}", **c} for n, c in enumerate(changes, start=1)]
    return pd.DataFrame(rows)


@pytest.mark.usefixtures("store")
def test_stages_are_tested_against_the_one_before():
    for n, n_right in enumerate((20, 10, 11), start=1):
        keep(f"{n:064x}", [1] * n_right + [0] * (20 - n_right))
    tested = p_values(stages({}, {"p_value": 0.5}, {"p_value": 0.004}))
    assert tested == {2: 0.5, 3: 1.0}  # against the reference the run's own; then one gained and none lost


@pytest.mark.usefixtures("store")
def test_what_has_no_results_here_is_not_tested():
    keep(f"{2:064x}", [1, 0])
    assert p_values(stages({}, {}, {})) == {}


@pytest.mark.usefixtures("store")
def test_a_score_is_sure_where_its_test_is_significant():
    for n, n_right in enumerate((20, 10, 11), start=1):
        keep(f"{n:064x}", [1] * n_right + [0] * (20 - n_right))
    told = judge_scores(stages({}, {"p_value": 0.5}, {"p_value": 0.004}))
    assert {at: (one.is_sure, one.words) for at, one in told.items()} == {
        2: (False, "not significant (p = 0.500)"),
        3: (False, "not significant (p = 1.000)"),
    }
    assert judge_scores(stages({}, {"p_value": 0.01}))[2].is_sure


def timed(*times: tuple, **columns: object) -> pd.DataFrame:
    """Stages by their median [ms] and the ends of the interval of their time over the reference's, stage 1."""
    rows = [dict(zip(("p50_ms", "ratio_low", "ratio_high"), time, strict=True)) for time in times]
    return stages(*({"disturbed": False, **row, **columns} for row in rows))


@pytest.mark.parametrize(
    ("second", "third", "told"),
    [
        ((2.0, 1.9, 2.1), (3.0, 2.9, 3.1), {2: SURE, 3: SURE}),
        ((0.5, 0.4, 0.6), (0.4, 0.3, 0.5), {2: SURE, 3: CHANCE}),  # the third's interval meets the second's
        ((1.1, 0.9, 1.2), (2.0, 1.2, 2.1), {2: CHANCE, 3: CHANCE}),  # the second's holds the reference's own, one
        ((2.0, 1.9, 2.1), (1.9, 2.2, 2.3), {2: SURE, 3: CHANCE}),  # a drift: slower against the reference
        ((2.0, None, None), (1.0, 0.9, 1.1), {2: UNTESTED, 3: UNTESTED}),
    ],
)
def test_a_time_is_sure_where_intervals_against_the_reference_lie_apart(second, third, told):
    assert judge_times(timed((1.0, None, None), second, third)) == told


def test_a_disturbed_time_makes_both_its_changes_unsure():
    table = timed((1.0, None, None), (2.0, 1.9, 2.1), (3.0, 2.9, 3.1))
    table["disturbed"] = [False, True, False]
    assert judge_times(table) == {2: DISTURBED, 3: DISTURBED}
    table["disturbed"] = [True, False, False]
    assert judge_times(table) == {1: DISTURBED, 2: DISTURBED, 3: SURE}
    assert judge_times(table.iloc[:0]) == {}


def test_times_against_different_references_are_not_compared():
    table = timed((1.0, None, None), (2.0, 1.9, 2.1), (3.0, 2.9, 3.1))
    table["reference_stage_id"] = [1, 1, 7]
    assert judge_times(table) == {2: SURE, 3: UNTESTED}
