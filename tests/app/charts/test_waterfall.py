"""What each step of a run changed, in numbers and words."""

import pandas as pd

from app.charts import waterfall
from app.charts.axes import AXES, score_axis
from app.charts.theme import PALE
from app.charts.waterfall import Certainty

SIZE = AXES["size_bytes"]
ACCURACY = score_axis("accuracy", "%", True)


def stages(**columns: list) -> pd.DataFrame:
    first = next(iter(columns.values()))
    return pd.DataFrame({"position": range(1, len(first) + 1), "label": "step", **columns})


def test_each_bar_goes_from_the_value_before_to_the_value_after():
    rows = waterfall.changes(stages(size_bytes=[4000, 1000, 1500]), SIZE)
    assert list(zip(rows["before"], rows["after"], strict=True)) == [(0, 4000), (4000, 1000), (1000, 1500)]


def test_better_follows_the_quantity():
    smaller = waterfall.changes(stages(size_bytes=[4000, 1000, 1500, 1500]), SIZE)
    assert smaller["effect"].tolist() == ["start", "better", "worse", "same"]
    lower = waterfall.changes(stages(score=[97.0, 95.0, 96.0]), ACCURACY)
    assert lower["effect"].tolist() == ["start", "worse", "better"]


def test_a_change_reads_with_sign_unit_and_share():
    rows = waterfall.changes(stages(size_bytes=[4000, 1000, 1500]), SIZE)
    assert rows["change"].tolist() == ["start", "−3.00 kB (−75 %)", "+500 B (+50 %)"]


def test_stages_without_the_quantity_are_passed_over():
    rows = waterfall.changes(stages(p50_ms=[4.0, None, 2.0]), AXES["p50_ms"])
    assert rows["before"].tolist() == [0, 4.0]
    assert rows["label"].tolist() == ["1 · step", "3 · step"]


def test_the_axis_leaves_room_for_words_and_starts_at_nothing_below_zero():
    chart = waterfall.draw_waterfall(stages(size_bytes=[4000, 1000]), SIZE).to_dict()
    low, high = chart["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low == 0 and high > 5


def test_a_change_is_pale_unless_it_is_sure():
    scores = stages(score=[97.0, 95.0, 94.8, 94.9, 94.9])
    told = {2: Certainty(True, "significant (p < 0.001)"), 3: Certainty(False, "not significant (p = 0.070)")}
    rows = waterfall.changes(scores, ACCURACY, told)
    assert rows["strength"].tolist() == [1.0, 1.0, PALE, PALE, 1.0]
    assert rows["change"].tolist() == [
        "start",
        "−2.0 points, significant (p < 0.001)",
        "−0.2 points, not significant (p = 0.070)",
        "+0.1 points, not tested",
        "no change",
    ]
    bars = waterfall.draw_waterfall(scores, ACCURACY, told, zero=False).to_dict()["layer"][0]["encoding"]
    assert bars["x"]["title"] == "%"  # the heading names the score
    assert bars["opacity"] == {"field": "strength", "type": "quantitative", "scale": None}


def test_sizes_are_exact():
    assert set(waterfall.changes(stages(size_bytes=[4000, 1000]), SIZE)["strength"]) == {1.0}


def test_a_first_stage_is_pale_where_it_was_disturbed():
    rows = waterfall.changes(stages(p50_ms=[4.0, 2.0]), AXES["p50_ms"], {1: Certainty(False, "disturbed")})
    assert rows["strength"].tolist() == [PALE, PALE]
    assert rows["change"].tolist() == ["start, disturbed", "−2.00 ms (−50 %), not tested"]
