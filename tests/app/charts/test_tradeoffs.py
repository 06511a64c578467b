"""Which points are drawn how: frontier, feasibility, references, and what is recommended."""

import pandas as pd
import pytest

from app.charts import tradeoffs
from app.charts.axes import AXES, score_axis

ACCURACY = score_axis("accuracy", "%", True)
BITS = score_axis("bits per character", "bits", False)
SIZE = AXES["size_bytes"]
ALL = {**AXES, "score": ACCURACY}


def points(*rows: tuple[int, float | None, float]) -> pd.DataFrame:
    """Stages 1, 2, … of (size, score, latency), each against stage 1."""
    return pd.DataFrame(
        [
            {
                "stage_id": number, "run_id": 10 + number, "label": f"stage {number}", "model": "builtin:vit",
                "family": "quantization" if number > 1 else "training", "reference_stage_id": 1, "size_bytes": size,
                "score": score, "score_low": score and score - 1, "score_high": score and score + 1, "p50_ms": ms,
                "compression_ratio": rows[0][0] / size, "speed_up": rows[0][2] / ms, "kernel": "dense",
            }
            for number, (size, score, ms) in enumerate(rows, start=1)
        ]
    )  # fmt: skip


FOUR = points((4000, 97.0, 4.0), (1000, 96.0, 2.0), (2000, 95.0, 1.0), (500, 80.0, 5.0))


def test_the_frontier_follows_both_directions():
    shown = tradeoffs.annotate(FOUR, SIZE, ACCURACY, {}, ALL)
    assert list(shown[shown["on_frontier"]]["stage_id"]) == [1, 2, 4]
    shown = tradeoffs.annotate(FOUR, SIZE, score_axis("bits", "bits", False), {}, ALL)
    assert list(shown[shown["on_frontier"]]["stage_id"]) == [4]


def test_points_without_a_value_on_an_axis_are_left_out():
    rows = points((4000, 97.0, 4.0), (1000, None, 2.0))
    assert list(tradeoffs.annotate(rows, SIZE, ACCURACY, {}, ALL)["stage_id"]) == [1]


def test_limits_bound_from_above_or_below_by_what_is_better():
    kept = tradeoffs.feasible(FOUR, {"size_bytes": 2000, "score": 95.0}, ALL)
    assert kept.tolist() == [False, True, True, False]
    fewer_bits = {**ALL, "score": BITS}
    assert tradeoffs.feasible(FOUR, {"score": 95.0}, fewer_bits).tolist() == [False, False, True, True]


def test_an_unknown_value_keeps_no_limit():
    rows = FOUR.assign(p50_ms=[None, 2.0, 1.0, 5.0])
    assert tradeoffs.feasible(rows, {"p50_ms": 9.0}, ALL).tolist() == [False, True, True, True]


def test_the_reference_and_the_frontier_are_strong_the_rest_is_pale():
    shown = tradeoffs.annotate(FOUR, SIZE, ACCURACY, {"size_bytes": 2000}, ALL)
    assert shown["is_reference"].tolist() == [True, False, False, False]
    assert shown["strength"].tolist() == [tradeoffs.PALE, tradeoffs.PLAIN, tradeoffs.PALE, tradeoffs.PLAIN]


def test_a_hover_reads_value_and_interval_in_their_units():
    shown = tradeoffs.annotate(FOUR, SIZE, ACCURACY, {}, ALL)
    assert shown["score_text"][1] == "96.0 %  (95 %: 95.0 % to 97.0 %)"
    assert shown["size_bytes_text"][1] == "1.00 kB"


def spec(y=ACCURACY, limits=None, **changes):
    shown = tradeoffs.annotate(FOUR.assign(**changes), SIZE, y, limits or {}, ALL)
    return tradeoffs.scatter(shown, SIZE, y, limits or {}, axes=ALL).to_dict(validate=True)


def channels(chart, name):
    """Every layer's encoding of a channel."""
    return [layer["encoding"][name] for layer in chart["layer"] if name in layer.get("encoding", {})]


def test_no_layer_takes_the_legend_away():
    for name in ("color", "shape"):
        assert all(channel.get("legend") for channel in channels(spec(), name))


def test_up_is_better_also_where_less_is():
    assert not any(channel["scale"]["reverse"] for channel in channels(spec(), "y"))
    turned = channels(spec(y=BITS), "y")
    assert all(channel["scale"]["reverse"] for channel in turned)
    assert "up is better" in turned[0]["title"]


def test_what_a_limit_forbids_is_shaded():
    [area] = [layer for layer in spec(limits={"size_bytes": 2000})["layer"] if layer["mark"]["type"] == "rect"]
    chart = spec(limits={"size_bytes": 2000})
    [row] = chart["datasets"][area["data"]["name"]]
    assert row["start"] == pytest.approx(2.0) and row["end"] > 4.0  # in kB: what is larger is forbidden


def test_a_reference_bears_its_name_where_few_are():
    texts = [layer for layer in spec()["layer"] if layer["mark"]["type"] == "text"]
    assert len(texts) == 1
    many = spec(reference_stage_id=[1, 2, 3, 4])
    assert len([layer for layer in many["layer"] if layer["mark"]["type"] == "text"]) == 1
    five = pd.concat([FOUR, FOUR.tail(1).assign(stage_id=5)]).assign(reference_stage_id=[1, 2, 3, 4, 5])
    shown = tradeoffs.annotate(five, SIZE, ACCURACY, {}, ALL)
    crowded = tradeoffs.scatter(shown, SIZE, ACCURACY, {}, axes=ALL).to_dict(validate=True)
    assert not [layer for layer in crowded["layer"] if layer["mark"]["type"] == "text"]
