"""Parallel coordinates and panels by hardware: which lines, which scales."""

import numpy as np
import pandas as pd
import pytest

from app.charts.annotated import annotate
from app.charts.axes import AXES, score_axis
from app.charts.by_hardware import draw_by_hardware
from app.charts.parallel import MOST_LINES, draw_parallel, list_lines

ACCURACY = score_axis("accuracy", "%", True)
SIZE, LATENCY = AXES["size_bytes"], AXES["p50_ms"]
ALL = {**AXES, "score": ACCURACY}


def shown(n=3, **changes):
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "stage_id": range(n), "run_id": range(n), "label": "rtn", "model": "m", "family": "quantization",
            "reference_stage_id": None, "size_bytes": 1000 * 10 ** chance.uniform(0, 2, n), "p50_ms": 2.0,
            "score": chance.uniform(80, 99, n),
        }
    )  # fmt: skip
    return annotate(frame.assign(**changes), SIZE, ACCURACY, {}, ALL)


def test_up_is_better_on_every_axis():
    drawn = list_lines(shown(size_bytes=[100, 1000, 10_000], score=[90.0, 95.0, 100.0]), [SIZE, ACCURACY])
    places = {axis: rows["place"].tolist() for axis, rows in drawn.groupby("axis")}
    assert places["Size"] == pytest.approx([1.0, 0.5, 0.0])  # in decades
    assert places["Accuracy"] == pytest.approx([0.0, 0.5, 1.0])
    assert drawn["value"].tolist()[:3] == ["100 B", "1.00 kB", "10.0 kB"]


def test_an_axis_without_difference_and_values_without_measurement_are_left_out():
    drawn = list_lines(shown(p50_ms=2.0), [SIZE, ACCURACY, LATENCY])
    assert set(drawn["axis"]) == {"Size", "Accuracy"}
    drawn = list_lines(shown(p50_ms=[1.0, np.nan, 4.0]), [SIZE, LATENCY])
    assert set(drawn[drawn["axis"] == LATENCY.head]["stage_id"]) == {0, 2}
    assert list_lines(shown(size_bytes=1, score=1.0), [SIZE, ACCURACY]).empty


def test_of_many_lines_the_frontier_stays():
    points = shown(1000)
    drawn = list_lines(points, [SIZE, ACCURACY])
    assert drawn["stage_id"].nunique() == MOST_LINES
    assert set(points.loc[points["on_frontier"], "stage_id"]) == set(drawn.loc[drawn["strong"], "stage_id"])
    spec = draw_parallel(drawn).to_dict(validate=True)
    assert spec["layer"][0]["encoding"]["x"]["sort"] == ["Size", "Accuracy"]


def test_panels_share_their_axes_and_turn_what_is_better_below():
    bits = score_axis("bits", "bits", False)
    points = pd.concat([shown(5).assign(hardware=name) for name in ("a", "b")])
    spec = draw_by_hardware(points, SIZE, bits, log_x=True, log_y=False).to_dict(validate=True)
    assert spec["facet"]["field"] == "hardware"
    encoding = spec["spec"]["layer"][0]["encoding"]
    assert (encoding["x"]["scale"]["type"], encoding["y"]["scale"]["reverse"]) == ("log", True)
    assert "resolve" not in spec  # scales are shared unless they are resolved
