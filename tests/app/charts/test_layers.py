"""The heat map of layers: blocks downwards, their layers across, values with units."""

import pytest

from app.charts.layers import draw_layers, list_cells, list_quantities, read

SPARSITY = [
    {"name": f"blocks.{i}.{part}", "shape": [8, 4], "weights": 32, "sparsity": 0.5 + i / 10}
    for i in range(2)
    for part in ("attention.q", "ffn.up")
]


def test_names_fall_into_blocks_and_parts():
    drawn = list_cells(
        [*SPARSITY, {"name": "stages.0.1.conv1", "sparsity": 0.1}, {"name": "head", "sparsity": 0.0}], "sparsity"
    )
    assert drawn["block"].tolist() == ["blocks.0", "blocks.0", "blocks.1", "blocks.1", "stages.0.1", "head"]
    assert drawn["part"].tolist() == ["attention.q", "ffn.up", "attention.q", "ffn.up", "conv1", ""]
    assert drawn["shape"].tolist()[:1] == ["8 × 4"]


def test_quantities_are_the_numbers_that_may_differ():
    rows = [{"name": "a", "shape": [1], "weights": 3, "sparsity": 0.5, "efficacy (%)": 31.25, "kept whole": True}]
    assert list_quantities(rows) == ["sparsity", "efficacy (%)"]
    assert (read("sparsity", 0.5), read("efficacy (%)", 31.25), read("seconds", 0.25)) == ("50.0 %", "31.2 %", "0.250")
    assert (read("bits", 8.0), read("heads", 0.0), read("bits", 1e12)) == ("8", "0", "1000000000000")


def test_quantities_that_differ_come_first():
    rows = [
        {"name": name, "bits": 8, "mse": error, "relative_error": error} for name, error in (("a", 0.1), ("b", 0.2))
    ]
    assert list_quantities(rows) == ["relative_error", "bits"]


def test_every_part_is_named_above_a_heat_map():
    parts = [f"part{n}" for n in range(12)]
    rows = [{"name": f"blocks.{i}.{part}", "sparsity": 0.5} for i in range(2) for part in parts]
    assert draw_layers(rows, "sparsity").to_dict()["layer"][0]["encoding"]["x"]["axis"]["labelOverlap"] is False


def test_blocks_with_several_layers_make_a_heat_map_over_the_whole_share():
    spec = draw_layers(SPARSITY, "sparsity").to_dict()
    colour = spec["layer"][0]["encoding"]["color"]
    assert spec["layer"][0]["mark"]["type"] == "rect"
    assert colour["scale"]["domain"] == [0.0, 1.0]
    assert [t["title"] for t in spec["layer"][0]["encoding"]["tooltip"]] == ["layer", "sparsity", "shape"]


@pytest.mark.parametrize("values", [[0.1, 0.9], [-0.2, 0.4]])
def test_rows_that_are_whole_blocks_make_bars(values):
    rows = [{"name": f"blocks.{i}", "block influence": value} for i, value in enumerate(values)]
    assert draw_layers(rows, "block influence").to_dict()["layer"][0]["mark"]["type"] == "bar"


def test_a_layer_without_the_quantity_is_left_out():
    assert list_cells([{"name": "a", "kept": 0.5}, {"name": "b"}], "kept")["layer"].tolist() == ["a"]
