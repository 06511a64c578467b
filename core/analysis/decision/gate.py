"""Checks a measured stage against a policy, clause by clause."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from core.analysis.decision.limits import Limit
from core.analysis.decision.policy import Clause, Policy
from core.errors import Problem, SpecError
from core.measured import Comparison, LatencyRow
from core.quantities import BY_NAME, SIZE, Origin, Quantity, Unit
from core.scores import PERCENT, difference_unit

DISTURBED = ", disturbed: requeue the run on an idle machine to measure it again"


class Outcome(StrEnum):
    """The outcome of a clause; only "pass" meets it."""

    PASS = "pass"
    FAIL = "fail"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class MeasuredValue:
    """A value with its 95 % interval and the p-value of its test, if any."""

    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ChampionFacts:
    """The champion of a device, which replaces a stage's reference."""

    score: float
    device: Mapping[str, str | int | None]  # on which alone the two are held together, by columns of `latency`
    untested: str = ""  # why there is no paired test of the two scores


@dataclass(frozen=True)
class Facts:
    """What is known of a stage; None: not measured. Sizes in bytes, scores in their unit."""

    score_name: str
    score_unit: str
    higher_is_better: bool
    trained: bool
    score: MeasuredValue
    values: Mapping[str, float | None]  # of the quantities and their intervals' ends, by column
    reference_size_bytes: int | None = None
    is_reference: bool = False  # of itself
    comparison: Comparison | None = None  # stage - reference
    latencies: Sequence[LatencyRow] = field(default_factory=list)
    champion: ChampionFacts | None = None  # with one, all that is said of the reference is said of it


@dataclass(frozen=True)
class Verdict:
    """A clause and its measured value, or the reason why there is none."""

    clause: Clause
    outcome: Outcome
    measured: MeasuredValue | None
    note: str = ""  # the conditions, or the reason


def hold(policy: Policy, facts: Facts, beside_champions: Sequence[Facts] = ()) -> list[Verdict]:
    """The verdict on each clause; raises SpecError if a clause is not a valid limit for the score.

    `beside_champions` are the stage's facts with each of the policy's champions in the place of its reference.
    """
    clauses = list(policy.clauses())
    problems = [found for clause in clauses for found in _mismatches(clause, facts)]
    if problems:
        raise SpecError(problems)
    return [_verdict(c, facts if c.champion is None else beside_champions[c.champion]) for c in clauses]


def _mismatches(clause: Clause, facts: Facts) -> Iterator[Problem]:
    """Problems of a clause on the score that only fits another task's score."""
    bound, unit = clause.limit.bound, facts.score_unit
    if clause.limit.quantity == "score" and (clause.limit.sense == "at least") != facts.higher_is_better:
        better, right = ("higher", "at_least") if facts.higher_is_better else ("lower", "at_most")
        message = f"forbids improvements: a {better} {facts.score_name} is better"
        yield Problem(clause.field, bound, message, f"Use score.{right}.")
    expected = difference_unit(unit) if clause.limit.quantity == "score_loss" else unit
    if clause.unit not in ("", expected):
        message = f"is given in {clause.unit!r}, but {facts.score_name} is measured in {expected or 'no unit'}"
        yield Problem(clause.field, f"{bound:g} {clause.unit}", message, f"Write it in {expected or 'no unit'}.")


def _verdict(clause: Clause, facts: Facts) -> Verdict:
    quantity = clause.limit.quantity
    if quantity in ("p50_ms", "latency_ratio"):
        return _latency_verdict(clause, facts)
    if quantity in ("score", "score_loss"):
        measured, note = _score(facts) if quantity == "score" else _loss(facts)
    else:
        measured, note = _size_ratio(facts) if quantity == "size_ratio" else _plain(BY_NAME[quantity], facts)
    return Verdict(clause, _outcome(clause.limit, measured), measured, note)


def _outcome(limit: Limit, measured: MeasuredValue | None) -> Outcome:
    if measured is None:
        return Outcome.NOT_MEASURED
    p_value = math.nan if measured.p_value is None else measured.p_value
    return Outcome.PASS if limit.keeps(measured.value, p_value) else Outcome.FAIL


def _size_ratio(facts: Facts) -> tuple[MeasuredValue | None, str]:
    size = facts.values[SIZE.name]
    reference = facts.reference_size_bytes or (size if facts.is_reference else None)
    return (MeasuredValue(size / reference), "") if size and reference else (None, "it has no reference")


def _plain(quantity: Quantity, facts: Facts) -> tuple[MeasuredValue | None, str]:
    """A quantity with only a value and an interval."""
    if quantity.origin in (Origin.SCORES, Origin.COMPARISON) and not facts.trained:
        return _score(facts)
    if quantity.origin is Origin.COMPARISON and facts.is_reference:
        best = 1.0 if quantity.unit is Unit.COSINE else PERCENT
        return MeasuredValue(best if quantity.better == "more" else 0.0), "it is its own reference"
    value, *ends = (facts.values.get(column) for column in quantity.columns)
    if value is not None:
        return MeasuredValue(float(value), *ends), ""
    if quantity.origin is Origin.SCORES:
        return None, f"{facts.score_name} has no such value"
    if quantity.origin is Origin.COMPARISON and facts.reference_size_bytes is None:
        return None, "it has no reference"
    return None, "the run did not measure it"


def _score(facts: Facts) -> tuple[MeasuredValue | None, str]:
    return (facts.score, "") if facts.trained else (None, "the stage is not trained, so its score is meaningless")


def _loss(facts: Facts) -> tuple[MeasuredValue | None, str]:
    """The loss, above zero if the stage is worse than its reference."""
    if not facts.trained:
        return _score(facts)
    if facts.is_reference:
        return MeasuredValue(0.0), "it is its own reference"
    found, sign = facts.comparison, -1 if facts.higher_is_better else 1
    if found is not None:
        ends = sorted((sign * found.low, sign * found.high))
        return MeasuredValue(sign * found.delta, ends[0], ends[1], found.p_value), ""
    if facts.champion is None:
        return None, "it has no reference"
    return MeasuredValue(sign * (facts.score.value - facts.champion.score)), f"no test: {facts.champion.untested}"


def _latency_verdict(clause: Clause, facts: Facts) -> Verdict:
    """The verdict on the slowest measurement that matches the conditions."""
    named = dict(clause.conditions) if facts.champion is None else facts.champion.device
    fitting = [row for row in facts.latencies if all(getattr(row, name) == value for name, value in named.items())]
    timed = [(row, _time(clause.limit.quantity, row, facts.is_reference)) for row in fitting]
    told = [(row, found) for row, found in timed if found is not None]
    if len(told) < len(fitting) or not told:
        return Verdict(clause, Outcome.NOT_MEASURED, None, _why_no_latency(named, facts.latencies, fitting))
    row, measured = max(told, key=lambda pair: pair[1].value)
    note = conditions_in_words(row) + (DISTURBED if row.disturbed else "")
    if facts.champion and measured.low is None:
        note += ", ratio of the two medians: they were not timed against the same reference"
    if len(told) > 1:
        note = f"the slowest of {len(told)}: {note}"
    return Verdict(clause, _outcome(clause.limit, measured), measured, note)


def _time(quantity: str, row: LatencyRow, is_reference: bool) -> MeasuredValue | None:
    if quantity == "p50_ms":
        return MeasuredValue(row.p50_ms)
    if is_reference:
        return MeasuredValue(1.0)
    return None if row.ratio is None else MeasuredValue(row.ratio, row.ratio_low, row.ratio_high)


def _why_no_latency(
    named: Mapping[str, str | int | None], latencies: Sequence[LatencyRow], fitting: Sequence[LatencyRow]
) -> str:
    if fitting:
        return "it was not timed against a reference"
    if not latencies:
        return "no latency was measured: no kernel supports it there"
    wanted = ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    return f"not timed with {wanted}; timed: {'; '.join(sorted({conditions_in_words(row) for row in latencies}))}"


def conditions_in_words(row: LatencyRow) -> str:
    """The conditions of a latency in words: "eager, batch 1, forward, 8 threads, Example CPU"."""
    length = f", {row.length} tokens" if row.length else ""
    threads = f"{row.threads} thread{'' if row.threads == 1 else 's'}"
    return f"{row.runtime} {row.dtype}, batch {row.batch}{length}, {row.phase}, {threads}, {row.hardware}"
