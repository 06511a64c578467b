"""Checks a finished run's stage against a policy for `slimboard gate`. Loads no torch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.cli import gate_champion, shell, terminal
from app.text import formats, stage_references
from app.text.conditions import condition_name
from core.analysis.decision.gate import Facts, MeasuredValue, Outcome, Verdict, hold
from core.analysis.decision.policy import Clause, Policy
from core.errors import SpecError
from core.measured import SIGNIFICANT, Comparison, LatencyRow
from core.quantities import BY_NAME, SCORE, Unit, measured_values
from core.scores import difference_unit
from core.store import engine, runs, stages
from core.store.comparison import ComparedItem
from core.store.models import RunStatus


def judge(text: str, run: str, *, as_json: bool) -> tuple[str, bool]:
    """The report on a run (12, or its stage 12.3) under a policy's text, and whether it meets every limit.

    Raises SpecError for an invalid policy or run, CommandError if there is no store.
    """
    policy, item = Policy.from_yaml(text), _item(run)
    with shell.store():
        gated = _read(item, policy)
    verdicts = hold(policy, gated.facts, [champion.facts for champion in gated.champions])
    kept = all(verdict.outcome is Outcome.PASS for verdict in verdicts)
    if as_json:
        return json.dumps(_as_json(gated, verdicts, kept=kept), indent=1, ensure_ascii=False), kept
    return f"{_titles(gated)}\n{_report(verdicts, gated.facts.score_unit)}", kept


def _item(text: str) -> ComparedItem:
    """The run or stage in the text; raises SpecError."""
    remedy = "Write a run as 12, or one of its stages as 12.3."
    try:
        items = stage_references.parse(text)
    except stage_references.AddressError as error:
        raise SpecError.of("RUN", text, "is not a run", remedy) from error
    if len(items) != 1:
        raise SpecError.of("RUN", text, f"names {len(items)} runs", remedy)
    return items[0]


@dataclass(frozen=True)
class _Gated:
    """The gated stage and its facts, on its own and relative to the policy's champions."""

    run_id: int
    position: int
    label: str
    facts: Facts
    champions: list[gate_champion.FoundChampion]


def _read(item: ComparedItem, policy: Policy) -> _Gated:
    """A stage's facts; raises SpecError if it, or a champion in the policy, does not exist."""
    with engine.read_session() as s:
        found = runs.find_run(s, item.run_id)
        if found is None:
            raise SpecError.of("RUN", item.run_id, "does not exist", "`slimboard runs` lists all runs.")
        if found.status != RunStatus.DONE:
            remedy = f"`slimboard show {item.run_id}` shows its status."
            raise SpecError.of("RUN", item.run_id, f"is {found.status.value}, not done", remedy)
        rows = {row.RunStage.position: row for row in stages.list_run_stages(s, item.run_id)}
        position = max(rows) if item.position is None else item.position
        if position not in rows:
            there = ", ".join(str(place) for place in sorted(rows) if place >= 0)
            raise SpecError.of(
                "RUN", f"{item.run_id}.{position}", "is not a stage of the run", f"Choose one of {there}."
            )
        timed = [
            row
            for row in stages.list_latencies(s, [item.run_id])
            if row.position == position and row.operating_point_id is None
        ]
        stage, facts = rows[position].Stage, _facts(rows[position], timed)
        champions = [
            gate_champion.find(s, place, rule, found.project_id, stage, timed, facts)
            for place, rule in policy.champions()
        ]
        return _Gated(item.run_id, position, stage.label, facts, champions)


def _facts(row: Any, timed: Sequence[Any]) -> Facts:
    place, stage = row.RunStage, row.Stage
    names = [field.name for field in fields(LatencyRow)]
    delta = place.score_delta
    return Facts(
        score_name=stage.score_name,
        score_unit=stage.score_unit,
        higher_is_better=stage.higher_is_better,
        trained=stage.trained,
        score=MeasuredValue(stage.score, stage.score_low, stage.score_high),
        values=measured_values(stage, place),
        reference_size_bytes=row.reference_size_bytes,
        is_reference=place.reference_stage_id == stage.id,
        comparison=None
        if delta is None
        else Comparison(delta, place.score_delta_low, place.score_delta_high, place.p_value),
        latencies=[LatencyRow(**{name: getattr(row, name) for name in names}) for row in timed],
    )


def _as_json(gated: _Gated, verdicts: Sequence[Verdict], *, kept: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"run": gated.run_id, "position": gated.position, "stage": gated.label, "passed": kept}
    if gated.champions:
        report["champions"] = [
            {
                "rule": champion.place,
                "run": champion.run_id,
                "position": champion.position,
                "stage": champion.label,
                "device": asdict(champion.device),
            }
            for champion in gated.champions
        ]
    return {**report, "rules": [_rule_as_json(verdict, gated.facts.score_unit) for verdict in verdicts]}


def _rule_as_json(verdict: Verdict, score_unit: str) -> dict[str, Any]:
    measured, limit = verdict.measured, verdict.clause.limit
    return {
        "rule": verdict.clause.field,
        "outcome": verdict.outcome.value,
        "quantity": limit.quantity,
        "unit": _unit(verdict.clause, score_unit),
        "limit": limit.bound,
        "value": measured and measured.value,
        "low": measured and measured.low,
        "high": measured and measured.high,
        "p_value": measured and measured.p_value,
        "note": verdict.note,
    }


def _titles(gated: _Gated) -> str:
    """The stage, and the champions that it is compared with."""
    lines = [f"run {gated.run_id}, stage {gated.position}: {_one_line(gated.label)}"]
    for champion in gated.champions:
        device = _one_line(condition_name(champion.device))
        stage = f"run {champion.run_id}, stage {champion.position}: {_one_line(champion.label)}"
        lines.append(f"{champion.place}: {stage} ({device})")
    return "\n".join(lines) + "\n"


def _report(verdicts: Sequence[Verdict], score_unit: str) -> str:
    """One line per rule, and a summary."""
    head = ("", "rule", "limit", "measured", "95 % interval", "")
    lines = [_line(verdict, score_unit) for verdict in verdicts]
    failed = sum(verdict.outcome is not Outcome.PASS for verdict in verdicts)
    of = formats.plural(len(verdicts), "rule")
    summary = f"{failed} of {of} failed." if failed else f"All {of} passed."
    return f"{terminal.format_table(head, lines)}\n\n{summary if len(verdicts) > 1 or failed else 'The rule passed.'}"


def _line(verdict: Verdict, score_unit: str) -> list[str]:
    limit, measured = verdict.clause.limit, verdict.measured
    read = _reader(verdict.clause, score_unit)
    interval = ""
    if measured and measured.low is not None and measured.high is not None:
        interval = f"{read(measured.low)} … {read(measured.high)}"
    value = read(measured.value) if measured else formats.NOTHING
    notes = [note for note in (verdict.note, _significance(verdict)) if note]
    outcome = verdict.outcome.value
    return [
        outcome if verdict.outcome is Outcome.PASS else outcome.upper(),
        verdict.clause.field,
        f"{limit.sense} {read(limit.bound)}",
        value,
        interval,
        _one_line("; ".join(notes)),
    ]


def _significance(verdict: Verdict) -> str:
    """Whether a loss is significant, and whether it was excused for that."""
    limit, measured = verdict.clause.limit, verdict.measured
    if measured is None or measured.p_value is None:
        return ""
    chance = measured.p_value >= SIGNIFICANT
    excused = chance and not limit.keeps(measured.value) and limit.significant_only
    words = f"{'not significant' if chance else 'significant'} ({formats.p_value(measured.p_value)})"
    return words + (", so it passes" if excused else "")


def _one_line(text: str) -> str:
    """User or plug-in text without characters that could control a terminal or a log."""
    return "".join(c if c.isprintable() else "·" for c in text)


def _exact(unit: str) -> Callable[[float], str]:
    """Numbers with six digits, so that a value near its limit is not rounded onto it."""
    return lambda value: f"{value:.6g} {unit}".rstrip()


def _bytes(value: float) -> str:
    factor, unit = next(((f, u) for f, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if value >= f), (1.0, "B"))
    return f"{value / factor:.6g} {unit}"


def _unit(clause: Clause, score_unit: str) -> str:
    """The unit of a clause's numbers."""
    of = "× reference" if clause.champion is None else "× champion"
    relative = {"size_ratio": of, "latency_ratio": of, "score_loss": difference_unit(score_unit)}
    name = clause.limit.quantity
    if name in relative:
        return relative[name]
    return score_unit if name == SCORE.name else BY_NAME[name].unit.symbol


def _reader(clause: Clause, score_unit: str) -> Callable[[float], str]:
    unit = _unit(clause, score_unit)
    return _bytes if unit == Unit.BYTES.symbol else _exact(unit)
