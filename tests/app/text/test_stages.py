"""Stages and latencies in words."""

import pandas as pd
import pytest

from app.text import formats, stages
from core.quantities import Shown, shown_in

STAGE = {
    "position": 2, "label": "rtn 8-bit", "stage_id": 7, "reference_stage_id": 5, "trained": True, "size_bytes": 250_000,
    "reference_size_bytes": 1_000_000, "score": 96.5, "score_low": 95.0, "score_high": 98.0, "score_name": "accuracy",
    "score_unit": "%", "score_delta": -0.5, "p_value": 0.02, "macs": 2_000_000, "parameters": 86_500, "nonzeros": 9,
    "peak_memory_bytes": 400_000, "scores": {"accuracy": 96.5, "cross entropy": 0.123}, "seconds": 1.5, "reused": False,
    "perplexity": None, "kl": 0.00123, "kl_low": 0.0011, "kl_high": 0.0014, "kl_p99": 0.021, "kl_max": 0.5,
    "top1_agreement": 99.5, "flips": 0.4, "right_to_wrong": 0.3, "wrong_to_right": 0.1,
}  # fmt: skip
TIMED = {
    "position": 2, "phase": "forward", "batch": 1, "length": None, "runtime": "eager", "threads": 2, "dtype": "float32",
    "p50_ms": 2.0, "p95_ms": 2.4, "ratio": 0.5, "ratio_low": 0.48, "ratio_high": 0.52, "kernel": "int8 onednn",
    "disturbed": False, "reference_p50_ms": 4.0, "repeats": 30, "contention": 0.0, "energy_mj": None,
}  # fmt: skip


def line(stage=STAGE, timed=TIMED):
    """The table's line of a stage."""
    latencies = stages.add_conditions(pd.DataFrame([timed] if timed else []))
    seen = "forward, batch 1, eager, 2 threads" if timed else None
    known = stages.add_latency(pd.DataFrame([stage]), latencies, seen)
    return stages.make_stage_table(known, {2} if timed else set()).iloc[0]


def test_a_stage_reads_with_units_and_intervals():
    assert line().to_dict() == {
        "Stage": "2 · rtn 8-bit",
        "Size": "250 kB (4.00× smaller)",
        "Accuracy": "96.5 % (95.0 % to 98.0 %)",
        "Score vs reference": "−0.5 points, significant (p = 0.020)",
        "p50 / p95": "2.00 ms / 2.40 ms",
        "Relative latency": "0.500× (0.480× to 0.520×)",
        "Kernel": "int8 onednn",
    }


def test_a_stage_that_nothing_could_time_is_size_only():
    assert line(timed=None)["p50 / p95"] == "size only (no kernel on this worker)"


def test_an_untrained_stage_is_not_blamed_for_a_missing_time():
    assert line({**STAGE, "trained": False, "score_delta": None, "p_value": None}, None)["p50 / p95"] == "–"


@pytest.mark.parametrize(
    ("p_value", "words"),
    [(0.2, "not significant (p = 0.200)"), (0.049, "significant (p = 0.049)"), (1e-7, "significant (p < 0.001)")],
)
def test_significance_in_words(p_value, words):
    assert formats.significance(p_value) == words


def test_the_reference_says_that_it_is():
    reference = {**STAGE, "stage_id": 5, "score_delta": None, "p_value": None}
    assert line(reference)["Score vs reference"] == "reference"


def test_a_reference_from_elsewhere_has_no_place():
    assert stages.name_of({**STAGE, "position": -1}) == "reference · rtn 8-bit"


def test_a_disturbed_time_is_marked():
    assert "disturbed" in line(timed={**TIMED, "disturbed": True})["p50 / p95"]


def test_the_plainest_conditions_come_first():
    rows = [{**TIMED, "phase": "decode", "length": 128}, {**TIMED, "batch": 64}, TIMED]
    named = stages.add_conditions(pd.DataFrame(rows))
    assert list(named["conditions"]) == [
        "forward, batch 1, eager, 2 threads",
        "forward, batch 64, eager, 2 threads",
        "per generated token, batch 1, 128 tokens, eager, 2 threads",
    ]


def test_costs_have_units_and_leave_the_principal_score_out():
    cost = stages.make_cost_table(pd.DataFrame([STAGE | {"details": {"reached": {"share": 0.862}}}])).iloc[0]
    assert cost["Reached by the step"] == "86.2 %"
    assert cost["MACs"] == "2.00 M"
    assert cost["Other scores"] == "cross entropy 0.123 nats"


def test_perplexity_stands_beside_the_score_and_not_among_the_further_ones():
    text = {
        **STAGE, "score_name": "bits per character", "score_unit": "bits", "score": 2.1, "score_low": 2.0,
        "score_high": 2.2, "scores": {"bits per character": 2.1, "perplexity": 9.87}, "perplexity": 9.87, "details": {},
    }  # fmt: skip
    assert line(text)["Bits per character"] == "2.100 bits (2.000 bits to 2.200 bits), perplexity 9.87"
    assert stages.make_cost_table(pd.DataFrame([text])).iloc[0]["Other scores"] == "–"


def test_fidelity_is_told_of_trained_stages_or_why_there_is_none():
    columns = [column for quantity in shown_in(Shown.FIDELITY) for column in quantity.columns]
    without = {**STAGE, **dict.fromkeys(columns)}
    rows = [{**without, "trained": False}, {**without, "stage_id": 5}, STAGE, without]
    reference, measured, old = stages.make_fidelity_table(pd.DataFrame(rows)).to_dict("records")
    assert measured == {
        "Stage": "2 · rtn 8-bit",
        "KL": "0.00123 nats (0.00110 nats to 0.00140 nats)",
        "KL 99 %": "0.0210 nats",
        "KL max.": "0.500 nats",
        "Top-1": "99.50 %",
        "Flips": "0.40 %",
        "Right → wrong": "0.30 %",
        "Wrong → right": "0.10 %",
    }
    assert set(list(reference.values())[1:]) == {"reference"}
    assert set(list(old.values())[1:]) == {"not measured"}


def test_modules_that_a_step_missed_are_named_with_their_parameters():
    reached = {"share": 0.5, "missed": [{"name": "model.embed", "kind": "Embedding", "parameters": 2_000_000}]}
    [row] = stages.make_missed_table({"reached": reached}).to_dict("records")
    assert row == {"Not reached": "model.embed", "Kind": "Embedding", "Parameters": "2.00 M"}
    assert stages.make_missed_table({}).empty  # recorded before it was told


def test_layers_read_without_raw_floats():
    [row] = stages.make_layer_table(
        [{"name": "head", "shape": [10, 48], "sparsity": 0.5, "max_error": 1.234e-5, "mse": 1e-9}]
    ).to_dict("records")
    assert row == {"Layer": "head", "Shape": "10 × 48", "Sparsity": "50.00 %", "Max error": "0.0000123"}


def test_a_curve_of_a_score_is_named_with_its_unit():
    assert stages.make_curve_title("validation accuracy") == "validation accuracy (%)"
    assert stages.make_curve_title("validation_bits per character") == "validation bits per character (bits)"
    assert stages.make_curve_title("learning_rate") == "learning rate"


def test_what_a_checkpoint_holds_is_told_where_a_stage_was_loaded_from_one():
    stored = {"checkpoint": {"dtype": "bfloat16", "bytes": 43_968}}
    source = {**STAGE, "label": "hf:acme/small", "details": stored}
    (note,) = stages.list_checkpoint_notes(pd.DataFrame([source, {**STAGE, "details": {}}]))
    assert "44.0 kB of bfloat16 weights" in note and "small" in note


def test_fidelity_of_embeddings_is_told_without_the_quantities_of_predictions():
    columns = [column for quantity in shown_in(Shown.FIDELITY) for column in quantity.columns]
    near = {"cosine": 0.99987, "cosine_low": 0.9998, "cosine_high": 0.9999, "cosine_min": 0.98, "neighbours_kept": 95.5}
    rows = [{**STAGE, **dict.fromkeys(columns), **near}]
    (told,) = stages.make_fidelity_table(pd.DataFrame(rows)).to_dict("records")
    assert told == {
        "Stage": "2 · rtn 8-bit",
        "Cosine": "0.99987 (0.99980 to 0.99990)",
        "Cosine min.": "0.98000",
        "Neighbours": "95.50 %",
    }
