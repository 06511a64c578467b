"""Compares a gated stage with the champion in a policy instead of its reference. Loads no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy.orm import Session

from app.queries.artifacts import pair_scores
from app.text.conditions import condition_name
from core.analysis.decision.gate import ChampionFacts, Facts
from core.analysis.decision.policy import ChampionRule
from core.analysis.decision.relative_latency import Timed, relate_latency
from core.errors import SpecError
from core.measured import LatencyRow
from core.store import champions, stages
from core.store.models import Latency, Stage
from core.store.tradeoffs.filters import Conditions

DEVICE = ", ".join(field.name for field in fields(Conditions))
ROW = [field.name for field in fields(LatencyRow)]


@dataclass(frozen=True)
class FoundChampion:
    """A champion: its run and stage, the device, and the gated stage's facts relative to it."""

    place: str  # in the policy: "champion"
    run_id: int
    position: int
    label: str
    device: Conditions
    facts: Facts


def find(
    session: Session, place: str, rule: ChampionRule, project_id: int, stage: Stage, timed: Sequence[Any], facts: Facts
) -> FoundChampion:
    """The champion of a rule's device; `timed` are the stage's rows of `latency`.

    Raises SpecError if the rule matches no device with a champion of the stage's task, or several, or if the stage
    is the champion itself.
    """
    entry = _entry(session, place, rule, project_id, stage)
    if entry["stage_id"] == stage.id:
        remedy = "Gate another stage, or remove the champion from the policy."
        message = "is the gated stage itself"
        raise SpecError.of(place, rule.conditions(), message, remedy)
    rows = {row.Stage.id: row for row in stages.list_run_stages(session, entry["run_id"])}
    held = rows[entry["stage_id"]]
    relative = _relative_to_champion(
        facts, stage, held.Stage, entry["device"], timed, _last(session, held.Stage, entry["device"])
    )
    return FoundChampion(place, entry["run_id"], held.RunStage.position, held.Stage.label, entry["device"], relative)


def _entry(session: Session, place: str, rule: ChampionRule, project_id: int, stage: Stage) -> dict[str, Any]:
    named = rule.conditions()
    known = champions.list_champions(session, project_id)
    here = [entry for entry in known if entry["task_hash"] == stage.task_hash]
    fitting = [entry for entry in here if _fits(entry["device"], named)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        remedy = f"Narrow it down by {DEVICE}: {_list(fitting)}."
        raise SpecError.of(place, named, f"matches {len(fitting)} devices with a champion", remedy)
    if elsewhere := sorted({entry["task"] for entry in known if _fits(entry["device"], named)}):
        message = f"has a champion for {', '.join(elsewhere)} only, but the run was scored on {stage.task}"
        if elsewhere == [stage.task]:
            message = f"has a champion for {stage.task}, but on different data than the run's"
        raise SpecError.of(
            place, named, message, "Gate a run of the champion's task, or name a champion for this task."
        )
    if here:
        raise SpecError.of(
            place, named, "matches no device with a champion", f"Devices with a champion: {_list(here)}."
        )
    remedy = "Name one on a run's page, under Stages, or remove it from the policy."
    raise SpecError.of(place, named, f"there is no champion for {stage.task} in the run's project", remedy)


def _fits(device: Conditions, named: dict[str, str | int]) -> bool:
    return all(getattr(device, name) == value for name, value in named.items())


def _list(entries: Sequence[dict[str, Any]]) -> str:
    return "; ".join(condition_name(entry["device"]) for entry in entries)


def _last(session: Session, champion: Stage, device: Conditions) -> Timed | None:
    found = champions.find_latency(session, champion.id, device)
    return None if found is None else _timed(found)


def _timed(row: Any) -> Timed:
    return Timed(LatencyRow(**{name: getattr(row, name) for name in ROW}), row.stage_id, row.reference_stage_id)


def _relative_to_champion(
    facts: Facts,
    stage: Stage,
    champion: Stage,
    device: Conditions,
    timed: Sequence[Latency],
    last: Timed | None,
) -> Facts:
    """The facts with the champion in place of the reference."""
    tested = pair_scores(stage.score_name, stage.key, champion.key)
    untested = tested if isinstance(tested, str) else ""
    own = [_timed(row) for row in timed]
    latencies = [replace(o.row, ratio=None) if last is None else relate_latency(o, last) for o in own]
    return replace(
        facts,
        reference_size_bytes=champion.size_bytes,
        is_reference=False,
        comparison=None if isinstance(tested, str) else tested,
        latencies=latencies,
        champion=ChampionFacts(champion.score, asdict(device), untested),
    )
