"""Which points are drawn how: frontier, feasibility, references, and what is recommended."""

import pandas as pd
import pytest

from app.charts import tradeoffs
from app.charts.annotated import annotate, find_feasible, list_texts
from app.charts.axes import AXES, score_axis
from app.charts.theme import PALE, PLAIN

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
    shown = annotate(FOUR, SIZE, ACCURACY, {}, ALL)
    assert list(shown[shown["on_frontier"]]["stage_id"]) == [1, 2, 4]
    shown = annotate(FOUR, SIZE, score_axis("bits", "bits", False), {}, ALL)
    assert list(shown[shown["on_frontier"]]["stage_id"]) == [4]


def test_points_without_a_value_on_an_axis_are_left_out():
    rows = points((4000, 97.0, 4.0), (1000, None, 2.0))
    assert list(annotate(rows, SIZE, ACCURACY, {}, ALL)["stage_id"]) == [1]


def test_limits_bound_from_above_or_below_by_what_is_better():
    kept = find_feasible(FOUR, {"size_bytes": 2000, "score": 95.0}, ALL)
    assert kept.tolist() == [False, True, True, False]
    fewer_bits = {**ALL, "score": BITS}
    assert find_feasible(FOUR, {"score": 95.0}, fewer_bits).tolist() == [False, False, True, True]


def test_an_unknown_value_keeps_no_limit():
    rows = FOUR.assign(p50_ms=[None, 2.0, 1.0, 5.0])
    assert find_feasible(rows, {"p50_ms": 9.0}, ALL).tolist() == [False, True, True, True]


def test_what_is_on_the_frontier_or_undecided_is_strong_the_rest_is_pale():
    shown = annotate(FOUR, SIZE, ACCURACY, {"size_bytes": 2000}, ALL)
    assert shown["is_reference"].tolist() == [True, False, False, False]
    assert shown["strength"].tolist() == [PALE, PLAIN, PLAIN, PLAIN]
    assert shown["dominance"].tolist() == ["outside the limits", "on the frontier", "undecided", "on the frontier"]


def test_a_hover_reads_value_and_interval_in_their_units():
    shown = annotate(FOUR, SIZE, ACCURACY, {}, ALL)
    assert list_texts(shown, ACCURACY)[1] == "96.0 %  (95 %: 95.0 % to 97.0 %)"
    assert list_texts(shown, SIZE)[1] == "1.00 kB"


def spec(y=ACCURACY, limits=None, **changes):
    shown = annotate(FOUR.assign(**changes), SIZE, y, limits or {}, ALL)
    return tradeoffs.draw_scatter(shown, SIZE, y, limits or {}, axes=ALL).to_dict(validate=True)


def words(chart):
    """The rows of every layer of text."""
    layers = [layer for layer in chart["layer"] if layer["mark"]["type"] == "text"]
    return [row for layer in layers for row in chart["datasets"][layer["data"]["name"]]]


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
    assert "reversed" in turned[0]["title"]


def test_what_a_limit_forbids_is_shaded():
    [area] = [layer for layer in spec(limits={"size_bytes": 2000})["layer"] if layer["mark"]["type"] == "rect"]
    chart = spec(limits={"size_bytes": 2000})
    [row] = chart["datasets"][area["data"]["name"]]
    assert row["start"] == pytest.approx(2.0) and row["end"] > 4.0  # in kB: what is larger is forbidden


def test_a_reference_bears_its_name_where_few_are():
    assert [row["words"] for row in words(spec())] == ["reference", "knee"]
    assert len(words(spec(reference_stage_id=[1, 2, 3, 4]))) == 4 + 1
    five = pd.concat([FOUR, FOUR.tail(1).assign(stage_id=5)]).assign(reference_stage_id=[1, 2, 3, 4, 5])
    shown = annotate(five, SIZE, ACCURACY, {}, ALL)
    crowded = tradeoffs.draw_scatter(shown, SIZE, ACCURACY, {}, axes=ALL).to_dict(validate=True)
    assert [row["words"] for row in words(crowded)] == ["knee"]


SEEDS = {"n": 1, "n_seeds": [1, 1, 3, 1], "runs": ["11", "12", "13, 14, 15", "16"]}


def test_what_is_not_significant_is_undecided_and_hollow():
    scores = {"score": [97.0, 96.9, 94.0, 80.0], "size_bytes": [1000, 1200, 2000, 500]}
    found = FOUR.assign(**scores, score_low=[96.0, 95.9, 93.0, 79.0], score_high=[98.0, 97.9, 95.0, 81.0])
    shown = annotate(found, SIZE, ACCURACY, {}, ALL)
    assert shown["dominance"].tolist() == ["on the frontier", "undecided", "dominated", "on the frontier"]
    chart = tradeoffs.draw_scatter(shown, SIZE, ACCURACY, {}, axes=ALL).to_dict(validate=True)
    [fill], [outline] = channels(chart, "fillOpacity"), channels(chart, "strokeOpacity")
    assert fill["scale"]["domain"] == outline["scale"]["domain"] == ["on the frontier", "undecided", "dominated"]
    hollow, full = dict(zip(fill["scale"]["domain"], fill["scale"]["range"], strict=True)), outline["scale"]["range"]
    assert hollow["undecided"] == 0 < hollow["dominated"] < hollow["on the frontier"]
    assert full[1] == PLAIN


def test_counted_neighbours_make_a_difference_less_sure():
    pair = FOUR.head(2).assign(
        size_bytes=[1000, 2000], score=[97.0, 95.4], score_low=[96.0, 94.4], score_high=[98.0, 96.4]
    )
    assert annotate(pair.assign(n=1), SIZE, ACCURACY, {}, ALL)["dominance"].tolist()[1] == "dominated"
    assert annotate(pair.assign(n=[50, 1]), SIZE, ACCURACY, {}, ALL)["dominance"].tolist()[1] == "undecided"


def test_seeds_are_told_with_their_runs_and_their_interval():
    shown = annotate(
        FOUR.assign(**SEEDS, score_df=[float("inf"), float("inf"), 2.0, float("inf")]), SIZE, ACCURACY, {}, ALL
    )
    assert shown["seeds_text"].tolist() == ["1", "1", "3 (runs 13, 14, 15)", "1"]
    assert list_texts(shown, ACCURACY)[2] == "95.0 %  (95 % between seeds: 94.0 % to 96.0 %)"
    chart = tradeoffs.draw_scatter(shown, SIZE, ACCURACY, {}, axes=ALL).to_dict(validate=True)
    [tooltip] = [t for t in channels(chart, "tooltip") if isinstance(t, list)]
    assert {"Seeds", "Dominance"} <= {told["title"] for told in tooltip}


def test_a_hover_tells_both_axes_the_marks_size_and_what_everyone_asks():
    speed_up, ratio = AXES["speed_up"], AXES["compression_ratio"]
    shown = annotate(FOUR, ratio, ACCURACY, {}, ALL)
    chart = tradeoffs.draw_scatter(shown, ratio, ACCURACY, {}, size=speed_up, axes=ALL).to_dict(validate=True)
    [tooltip] = [t for t in channels(chart, "tooltip") if isinstance(t, list)]
    assert [told["title"] for told in tooltip] == [
        "Stage", "Model", "Run", "Dominance", "Compression", "Accuracy", "Speed-up", "Size", "Latency (median)",
        "Kernel",
    ]  # fmt: skip
    plain = tradeoffs.draw_scatter(shown, ratio, ACCURACY, {}, axes=ALL).to_dict(validate=True)
    [tooltip] = [t for t in channels(plain, "tooltip") if isinstance(t, list)]
    assert "Speed-up" not in [told["title"] for told in tooltip]
