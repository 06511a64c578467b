"""Stages held against policies, by hand."""

from dataclasses import replace

import pytest

from core.analysis.decision.gate import Facts, MeasuredValue, Outcome, hold
from core.analysis.decision.policy import Policy
from core.errors import SpecError
from core.measured import Comparison
from tests.factories import latency

VALUES = {
    "size_bytes": 1_000_000, "macs": 10_000_000, "peak_memory_bytes": 4_000_000, "reload_max_error": 0.0005,
    "perplexity": None, "kl": 0.02, "kl_low": 0.015, "kl_high": 0.026, "kl_p99": 0.3, "top1_agreement": 97.5,
    "flips": 2.0, "right_to_wrong": 1.5,
}  # fmt: skip
STAGE = Facts(
    score_name="accuracy",
    score_unit="%",
    higher_is_better=True,
    trained=True,
    score=MeasuredValue(95.0, 93.0, 97.0),
    values=VALUES,
    reference_size_bytes=4_000_000,
    comparison=Comparison(delta=-0.8, low=-2.0, high=0.4, p_value=0.2),
    latencies=[latency(batch=1), latency(batch=64, p50_ms=50.0, ratio=0.9, ratio_low=0.8, ratio_high=1.0)],
)
PASS, FAIL, NOT_MEASURED = Outcome.PASS, Outcome.FAIL, Outcome.NOT_MEASURED


def verdict(text: str, **changes):
    [found] = hold(Policy.from_yaml(text), replace(STAGE, **changes))
    return found


@pytest.mark.parametrize(
    ("text", "outcome", "value"),
    [
        ("size: {at_most: 1 MB}", PASS, 1e6),
        ("size: {at_most: 999 kB}", FAIL, 1e6),
        ("size: {ratio_at_most: 0.25}", PASS, 0.25),
        ("size: {ratio_at_most: 0.24}", FAIL, 0.25),
        ("score: {at_least: 95 %}", PASS, 95.0),
        ("score: {at_least: 95.1}", FAIL, 95.0),
        ("score: {loss_at_most: 0.8 points}", PASS, 0.8),
        ("score: {loss_at_most: 0.5}", FAIL, 0.8),
        ("score: {loss_at_most: 0.5, significant_only: true}", PASS, 0.8),  # p is 0.2
        ("latency: {at_most: 2 ms, batch: 1}", PASS, 2.0),
        ("latency: {at_most: 2 ms}", FAIL, 50.0),  # batch 64 is meant too
        ("latency: {ratio_at_most: 0.5, batch: 1, runtime: eager}", PASS, 0.5),
        ("latency: {ratio_at_most: 0.5}", FAIL, 0.9),
        ("macs: {at_most: 10 M}", PASS, 1e7),
        ("macs: {at_most: 9.9 M}", FAIL, 1e7),
        ("memory: {at_most: 4 MB}", PASS, 4e6),
        ("memory: {at_most: 3.9 MiB}", PASS, 4e6),
        ("memory: {at_most: 3.9 MB}", FAIL, 4e6),
        ("reload_error: {at_most: 0.0005}", PASS, 0.0005),
        ("reload_error: {at_most: 0}", FAIL, 0.0005),
        ("kl: {at_most: 0.02}", PASS, 0.02),
        ("kl: {at_most: 0.0288 bits}", FAIL, 0.02),  # 0.01996 nats
        ("kl: {at_most: 0.0289 bits}", PASS, 0.02),
        ("kl_p99: {at_most: 0.29 nats}", FAIL, 0.3),
        ("top1_agreement: {at_least: 97.5 %}", PASS, 97.5),
        ("top1_agreement: {at_least: 98}", FAIL, 97.5),
        ("flips: {at_most: 2 %}", PASS, 2.0),
        ("right_to_wrong: {at_most: 1 %}", FAIL, 1.5),
    ],
)
def test_a_limit_is_kept_or_not(text, outcome, value):
    found = verdict(text)
    assert (found.outcome, found.measured.value) == (outcome, pytest.approx(value))


def test_a_significant_loss_counts():
    comparison = replace(STAGE.comparison, p_value=0.049)
    assert verdict("score: {loss_at_most: 0.5, significant_only: true}", comparison=comparison).outcome is FAIL
    assert verdict("score: {loss_at_most: 0.9, significant_only: true}", comparison=comparison).outcome is PASS


def test_a_divergence_is_told_with_its_interval():
    assert verdict("kl: {at_most: 1}").measured == MeasuredValue(0.02, 0.015, 0.026)


def test_a_loss_is_told_with_its_interval_turned_as_its_value():
    found = verdict("score: {loss_at_most: 0.5}").measured
    assert (found.value, found.low, found.high, found.p_value) == (0.8, -0.4, 2.0, 0.2)


def test_where_less_is_better_a_rise_is_a_loss():
    bits = {"score_name": "bits per character", "score_unit": "bits", "higher_is_better": False}
    changes = {**bits, "score": MeasuredValue(2.1), "comparison": Comparison(0.03, 0.01, 0.05, 0.001)}
    found = verdict("score: {loss_at_most: 0.02 bits}", **changes)
    assert (found.outcome, found.measured) == (FAIL, MeasuredValue(0.03, 0.01, 0.05, 0.001))
    assert verdict("score: {at_most: 2.1}", **changes).outcome is PASS
    assert verdict("score: {at_most: 2.0}", **changes).outcome is FAIL


@pytest.mark.parametrize(
    ("text", "changes", "note"),
    [
        ("memory: {at_most: 1 TB}", {"values": {**VALUES, "peak_memory_bytes": None}}, "the run did not measure it"),
        ("reload_error: {at_most: 9}", {"values": {**VALUES, "reload_max_error": None}}, "the run did not measure it"),
        ("size: {ratio_at_most: 9}", {"reference_size_bytes": None}, "it has no reference"),
        ("score: {loss_at_most: 99}", {"comparison": None}, "it has no reference"),
        ("score: {loss_at_most: 99, significant_only: true}", {"comparison": None}, "it has no reference"),
        ("score: {at_least: 1}", {"trained": False}, "not trained"),
        ("kl: {at_most: 9}", {"values": {}}, "the run did not measure it"),
        ("kl: {at_most: 9}", {"values": {}, "reference_size_bytes": None}, "it has no reference"),
        ("kl: {at_most: 9}", {"trained": False}, "not trained"),
        ("perplexity: {at_most: 9}", {}, "accuracy has no such value"),
        ("score: {loss_at_most: 99}", {"trained": False}, "not trained"),
        ("latency: {at_most: 9 s}", {"latencies": []}, "no kernel supports it there"),
        ("latency: {at_most: 9 s, batch: 2}", {}, "not timed with batch 2; timed: eager float32, batch 1, forward"),
        ("latency: {ratio_at_most: 9}", {"latencies": [latency(ratio=None), latency()]}, "against a reference"),
    ],
)
def test_what_was_not_measured_is_not_kept_and_says_why(text, changes, note):
    found = verdict(text, **changes)
    assert (found.outcome, found.measured) == (NOT_MEASURED, None)
    assert note in found.note


def test_a_reference_has_lost_nothing_and_is_as_large_and_fast_as_itself():
    changes = {"is_reference": True, "comparison": None, "latencies": [latency(ratio=None)]}
    changes["reference_size_bytes"] = None
    assert verdict("score: {loss_at_most: 0}", **changes).outcome is PASS
    assert verdict("size: {ratio_at_most: 0.99}", **changes).measured.value == 1
    assert verdict("kl: {at_most: 0}", **changes, values={}).outcome is PASS
    assert verdict("top1_agreement: {at_least: 100 %}", **changes, values={}).outcome is PASS
    assert verdict("latency: {ratio_at_most: 0.99}", **changes).measured.value == 1


def test_a_reference_that_was_loaded_in_a_wider_dtype_is_larger_than_its_file():
    changes = {"is_reference": True, "values": {"size_bytes": 8_000_000}, "reference_size_bytes": 4_000_000}
    found = verdict("size: {ratio_at_most: 1}", **changes)
    assert (found.outcome, found.measured.value) == (FAIL, 2)


def test_the_slowest_that_fits_decides_and_is_named():
    found = verdict("latency: {at_most: 1 s}", latencies=[latency(), latency(threads=1, p50_ms=9.0, disturbed=True)])
    assert found.measured.value == 9.0
    assert found.note.startswith("the slowest of 2: eager float32, batch 1, forward, 1 thread,")
    assert found.note.endswith(", disturbed: requeue the run on an idle machine to measure it again")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "score: {at_most: 95}",
            "score.at_most = 95.0: forbids improvements: a higher accuracy is better. Use score.at_least.",
        ),
        (
            "score: {at_least: 2 bits}",
            "score.at_least = '2 bits': is given in 'bits', but accuracy is measured in %. Write it in %.",
        ),
        ("score: {loss_at_most: 1 %}", "Write it in points."),
    ],
)
def test_a_policy_for_another_score_is_refused(text, said):
    with pytest.raises(SpecError) as refused:
        verdict(text)
    assert said in str(refused.value)
