"""Charts of sensitivity tables."""

import pandas as pd

from app.charts.sensitivity import KINDS, frontier_chart, histogram, loss_cells, outlier_chart, sensitivity_map, short
from core.allocation.histograms import BINS
from tests.core.allocation.test_table import table


def test_every_group_has_a_cell_in_each_quantized_format():
    cells = loss_cells(table())
    assert len(cells) == 3 * 4
    assert cells["format"].unique().tolist() == ["2-bit", "4-bit", "8-bit", "W8A8"]
    first = cells.iloc[0]
    assert (first["group"], first["words"], first["size"]) == ("blocks.0.q, k", "9.00 nats", "25 B")


def test_what_is_not_finite_has_no_cell_and_noise_below_zero_is_drawn_as_almost_nothing():
    cells = loss_cells(table(((0, None, -0.1, 1, 1), (0, 8, 2, 1, 1), (0, 7, 1, 1, 1))))
    assert len(cells) == 11
    assert cells.iloc[0]["short"] == "≤ 0"
    assert cells["shown"].min() > 0


def test_losses_in_cells_are_short():
    assert [short(loss) for loss in (1.234, 0.01234, 0.00012, 0.0000123, 0.0)] == [
        "1.2",
        "0.012",
        "0.00012",
        "1e-5",
        "≤ 0",
    ]


def test_colours_are_on_a_logarithmic_scale():
    encoding = sensitivity_map(table()).to_dict()["layer"][0]["encoding"]
    assert encoding["color"]["scale"]["type"] == "log"
    assert encoding["color"]["scale"]["domain"] == [0.1, 9.0]


def test_the_frontier_marks_each_kind_by_colour_and_shape():
    rows = [{"kind": kind, "cost": 1.0, "loss": 0.0, "label": "x", "named": True} for kind in KINDS]
    drawn = frontier_chart(pd.DataFrame(rows), 2.0, "Size (MB)").to_dict()
    marks = drawn["layer"][2]["encoding"]
    assert marks["color"]["scale"]["domain"] == marks["shape"]["scale"]["domain"] == list(KINDS)
    assert len(set(marks["shape"]["scale"]["range"])) == len(set(marks["color"]["scale"]["range"])) == 4


def test_outliers_and_histograms():
    profile = {"rms": 0.5, "outlier_ratio": 6.0, "histogram": [1, *[0] * (BINS - 2), 3]}
    assert outlier_chart([{"name": "a", "weights": profile, "inputs": profile}]).to_dict()
    (drawn,) = histogram(profile, "Weights").to_dict()["datasets"].values()
    assert [row["count"] for row in drawn] == [1, 3]
    assert [row["place"] for row in drawn] == 2 * ["beyond 7.52 RMS"]
