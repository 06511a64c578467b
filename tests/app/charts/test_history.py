"""Frontier history, and by how much."""

import pandas as pd
import pytest

from app.charts.axes import AXES, score_axis
from app.charts.history import draw_history, list_steps

SIZE, ACCURACY = AXES["size_bytes"], score_axis("accuracy", "%", True)


def points(*rows):
    return pd.DataFrame([{"stage_id": n, "x": x, "y": y, "at": 1000.0 * n} for n, (x, y) in enumerate(rows, start=1)])


def test_only_what_moves_the_frontier_is_a_step():
    moved = list_steps(points((4, 90), (2, 80), (3, 70), (1, 95), (1, 94)), SIZE, ACCURACY, log_x=False, log_y=False)
    assert moved["stage_id"].tolist() == [1, 2, 4]
    # of a rectangle of 1..4 by 70..95: a line at x 4 wins nothing to speak of, then (4-2)(80-70), then all
    assert moved["share"].tolist() == pytest.approx([0.0, 20 / 75, 1.0])
    assert moved["gain"].tolist() == pytest.approx([0.0, 20 / 75, 55 / 75])


def test_the_share_is_of_the_chart_as_it_is_drawn():
    moved = list_steps(points((16, 70), (4, 90), (1, 70)), SIZE, ACCURACY, log_x=True, log_y=False)
    assert moved["share"].tolist()[1] == pytest.approx(0.5)  # half of the decades, all of the score
    linear = list_steps(points((16, 70), (4, 90), (1, 70)), SIZE, ACCURACY, log_x=False, log_y=False)
    assert linear["share"].tolist()[1] == pytest.approx(12 / 15)


def test_a_hover_names_owner_run_and_stage():
    moved = list_steps(points((4, 90), (2, 80)), SIZE, ACCURACY, log_x=False, log_y=False)
    makers = {n: {"label": f"stage {n}", "model": "m", "run_id": 10 + n, "owner": "ada"} for n in (1, 2)}
    spec = draw_history(moved, makers, SIZE, ACCURACY).to_dict()
    [rows] = spec["datasets"].values()
    assert [(row["owner"], row["run_id"], row["label"]) for row in rows] == [
        ("ada", 11, "stage 1"),
        ("ada", 12, "stage 2"),
    ]
    titles = {told["title"] for told in spec["layer"][1]["encoding"]["tooltip"]}
    assert {"Advanced by", "Run", "Stage", "Size", "Accuracy", "Gain"} <= titles
