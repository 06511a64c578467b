"""Differences of scores from a base, with their intervals."""

import pandas as pd

from app.charts.deltas import draw_deltas


def drawn(*rows: tuple[float, float, float]) -> dict:
    """The chart of (difference, lower end, upper end)."""
    table = pd.DataFrame(rows, columns=["delta", "delta_low", "delta_high"])
    chart = draw_deltas(table.assign(name="run 2", p_value=1.0, verdict="not significant"), "accuracy", "%", "run 1")
    return chart.to_dict()["layer"][1]["encoding"]["x"]


def test_the_axis_has_a_width_where_nothing_differs():
    assert drawn((0.0, 0.0, 0.0))["scale"]["domain"] == [-1, 1]
    assert "domain" not in drawn((0.0, 0.0, 0.0), (0.0, -0.5, 0.0))["scale"]


def test_the_axis_names_score_base_and_unit():
    assert drawn((1.0, 0.5, 1.5))["title"] == "Difference in accuracy from run 1 (points)"
