"""Policies that can be read, and those that are refused with field, value and remedy."""

import pytest

from core.analysis.decision.limits import Limit
from core.analysis.decision.policy import Policy
from core.errors import SpecError
from core.quantities import POLICY_KEYS, Unit

WHOLE = """
size: {at_most: 1 MB, ratio_at_most: 0.5}
score: {at_least: 95 %, loss_at_most: 0.5, significant_only: true}
latency: {at_most: 2 ms, batch: 1, phase: forward, ratio_at_most: 0.8}
macs: {at_most: 12 M}
memory: {at_most: 50 MB}
reload_error: {at_most: 0.001}
"""


def test_every_limit_is_a_clause_in_the_unit_of_the_store():
    clauses = list(Policy.from_yaml(WHOLE).clauses())
    assert [(clause.field, clause.limit) for clause in clauses] == [
        ("size.at_most", Limit("size_bytes", "at most", 1e6)),
        ("size.ratio_at_most", Limit("size_ratio", "at most", 0.5)),
        ("score.at_least", Limit("score", "at least", 95.0)),
        ("score.loss_at_most", Limit("score_loss", "at most", 0.5, significant_only=True)),
        ("latency.at_most", Limit("p50_ms", "at most", 2.0)),
        ("latency.ratio_at_most", Limit("latency_ratio", "at most", 0.8)),
        ("macs.at_most", Limit("macs", "at most", 12e6)),
        ("memory.at_most", Limit("peak_memory_bytes", "at most", 50e6)),
        ("reload_error.at_most", Limit("reload_max_error", "at most", 0.001)),
    ]
    assert {clause.conditions for clause in clauses} == {(), (("batch", 1), ("phase", "forward"))}
    assert [clause.unit for clause in clauses if clause.field.startswith("score")] == ["%", ""]


def test_latency_may_be_limited_under_several_conditions():
    policy = Policy.from_yaml("latency: [{at_most: 2 ms, batch: 1}, {at_most: 60 ms, batch: 64}]")
    found = [(clause.field, clause.limit.bound, clause.conditions) for clause in policy.clauses()]
    assert found == [("latency[0].at_most", 2.0, (("batch", 1),)), ("latency[1].at_most", 60.0, (("batch", 64),))]


def test_what_is_asked_against_a_champion_names_its_device_and_which_champion_it_is():
    one = "champion: {hardware: X, batch: 1, size: {ratio_at_most: 1}, score: {loss_at_most: 0.5 points}}"
    policy = Policy.from_yaml("macs: {at_most: 1 M}\n" + one)
    assert [(place, rule.conditions()) for place, rule in policy.champions()] == [
        ("champion", {"hardware": "X", "batch": 1})
    ]
    found = [(clause.field, clause.limit, clause.champion) for clause in policy.clauses()]
    assert found[1:] == [
        ("champion.size.ratio_at_most", Limit("size_ratio", "at most", 1.0), 0),
        ("champion.score.loss_at_most", Limit("score_loss", "at most", 0.5), 0),
    ]
    assert found[0][2] is None  # against no one
    several = """
    champion:
      - {batch: 1, latency: {ratio_at_most: 0.9}}
      - {batch: 64, score: {loss_at_most: 1, significant_only: true}}
    """
    found = [(clause.field, clause.limit, clause.champion) for clause in Policy.from_yaml(several).clauses()]
    assert found == [
        ("champion[0].latency.ratio_at_most", Limit("latency_ratio", "at most", 0.9), 0),
        ("champion[1].score.loss_at_most", Limit("score_loss", "at most", 1.0, significant_only=True), 1),
    ]


@pytest.mark.parametrize("key", POLICY_KEYS)
def test_every_quantity_with_a_key_can_be_limited_to_its_better_side(key):
    quantity = POLICY_KEYS[key]
    field, unit = ("at_most", {"bytes": "B"}) if quantity.better == "less" else ("at_least", {})
    symbol = unit.get(quantity.unit.symbol, quantity.unit.symbol)
    bound = 0.5 if quantity.unit is Unit.COSINE else 12.0
    [clause] = Policy.from_yaml(f"{key}: {{{field}: {bound:g} {symbol}}}".replace(" }", "}")).clauses()
    assert (clause.field, clause.limit) == (f"{key}.{field}", Limit(quantity.name, field.replace("_", " "), bound))


def test_zero_may_be_lost():
    [clause] = Policy.from_yaml("score: {loss_at_most: 0}").clauses()
    assert clause.limit.bound == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "policy = None: is not a limit. Start with one of the keys size, score, latency"),
        ("{}", "is not a limit"),
        ("[size]", "is not a limit"),
        ("sizes: {at_most: 1 MB}", "sizes = {'at_most': '1 MB'}: is not a known key"),
        ("size: {most: 1 MB}", "size.most = '1 MB': is not a known key"),
        (
            "size: {at_most: 1 mb}",
            "size.at_most = '1 mb': has the unknown unit 'mb'. Write the number with one of B, kB",
        ),
        ("size: {at_most: 1000000}", "size.at_most = 1000000: has no unit"),
        ("size: 1 MB", "size = '1 MB': is neither a name nor a mapping. Write a mapping, such as {at_most: 1 MB}."),
        ("size: {at_most: 1 MB}\nscore:", "score = None: is empty. Write a limit, or remove the key."),
        ("size: {at_most: 1 MB, ratio_at_most: }", "size.ratio_at_most = None: is empty"),
        ("size: {at_most: 1 MB}\nlatency: []", "latency = []: is empty"),
        ("latency: {batch: 1}", "latency = {'batch': 1}: limits nothing. Add at_most or ratio_at_most."),
        ("latency: 2 ms", "latency = '2 ms': must be a list. Write a mapping, such as {at_most: 2 ms, batch: 1}"),
        ("latency: {at_most: 2}", "latency.at_most = 2: has no unit"),
        ("latency: [{at_most: 2 ms}, {at_most: 2 h}]", "latency[1].at_most = '2 h': has the unknown unit 'h'"),
        ("latency: {at_most: 2 ms, batch: true}", "latency.batch = True: must be a whole number"),
        ("latency: {at_most: 2 ms, batch: '1'}", "latency.batch = '1': must be a whole number"),
        ("latency: {at_most: 2 ms, batch: 0}", "latency.batch = 0"),
        ("latency: {at_most: 2 ms, phase: training}", "latency.phase = 'training'"),
        ("size: {ratio_at_most: 0}", "size.ratio_at_most = 0"),
        ("size: {ratio_at_most: .inf}", "size.ratio_at_most = inf: is not a finite number"),
        ("score: {at_least: yes}", "score.at_least = True: is not a quantity with a unit"),
        ("score: {loss_at_most: -1}", "score.loss_at_most = -1.0: must be at least 0"),
        ("score: {at_least: 90, significant_only: true}", "score.significant_only = True: has no loss_at_most to test"),
        (
            "kl: {at_most: 1 ms}",
            "kl.at_most = '1 ms': has the unknown unit 'ms'. Write the number with one of nats,",
        ),
        ("kl: {at_most: -1}", "kl.at_most = -1: must be at least 0 and finite"),
        ("kl: {at_least: 1}", "kl.at_least = 1: is not a known key"),
        ("flips: {at_most: 101 %}", "flips.at_most = '101 %'"),
        ("top1_agreement: {at_most: 99}", "top1_agreement.at_most = 99: is not a known key"),
        ("macs: {}", "macs = {}: is empty"),
        ("reload_error: {at_most: -0.1}", "reload_error.at_most = -0.1"),
        ("reload_error: {at_most: small}", "reload_error.at_most = 'small': must be a number"),
        ("champion: {batch: 1}", "champion = {'batch': 1}: limits nothing. Add size or score or latency."),
        ("champion: best", "champion = 'best': must be a list. Write a mapping, such as {batch: 1, size:"),
        ("champion: {size: 1}", "champion.size = 1: is neither a name nor a mapping. Write a mapping, such as {ratio"),
        ("champion: {size: {at_most: 1 MB}}", "champion.size.at_most = '1 MB': is not a known key"),
        ("champion: {score: {at_least: 95}}", "champion.score.at_least = 95: is not a known key"),
        ("champion: {score: {significant_only: true}}", "champion.score"),
        ("champion: [{size: {ratio_at_most: 1}}, {batch: 0}]", "champion[1].batch = 0"),
        ("champion: {dtype: x, size: {ratio_at_most: 1}}", "champion.dtype = 'x': is not a known key"),
        ("champion: {}", "champion = {}: is empty"),
        ("1: {at_most: 1 MB}", "[1] = 1: keys should be strings"),
        ("size: {at_most: 1 MB}\nsize: {at_most: 9 GB}", "the key size appears twice"),
        ("size: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a: &a [*a]", "contains itself"),
        ("size: {at_most: 2020-99-99}", "policy = '': cannot be read"),
        ("size: {at_most: [}", "line 1"),
    ],
)
def test_a_bad_policy_is_refused_with_field_value_and_remedy(text, said):
    with pytest.raises(SpecError) as refused:
        Policy.from_yaml(text)
    assert said in str(refused.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(SpecError) as refused:
        Policy.from_yaml("size: {at_most: 5}\nmemory: {at_most: 5 ms}\n")
    assert [problem.field for problem in refused.value.problems] == ["size.at_most", "memory.at_most"]
