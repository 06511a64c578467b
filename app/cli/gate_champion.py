"""The champion that a policy names, in the place of a stage's reference. Loads no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy.orm import Session

from app.queries.artifacts import paired_scores
from app.text.conditions import condition_name
from core.analysis.decision.gate import ChampionFacts, Facts
from core.analysis.decision.policy import ChampionRule
from core.analysis.decision.relative_latency import Timed, beside
from core.errors import SpecError
from core.measured import LatencyRow
from core.store import champions, stages
from core.store.models import Latency, Stage
from core.store.tradeoffs.filters import Conditions

DEVICE = ", ".join(field.name for field in fields(Conditions))
ROW = [field.name for field in fields(LatencyRow)]


@dataclass(frozen=True)
class FoundChampion:
    """A champion: its run and stage, the device, and the gated stage's facts beside it."""

    place: str  # in the policy: "champion"
    run_id: int
    position: int
    label: str
    device: Conditions
    facts: Facts


def find(
    session: Session, place: str, rule: ChampionRule, project_id: int, stage: Stage, timed: Sequence[Any], facts: Facts
) -> FoundChampion:
    """The champion of the device that a rule names; `timed` are the stage's rows of `latency`.

    Raises SpecError where the rule fits no device with a champion of the stage's task, or several, and where the
    stage is that champion.
    """
    entry = _entry(session, place, rule, project_id, stage)
    if entry["stage_id"] == stage.id:
        remedy = "Gate another stage, or leave the champion out of the policy."
        message = "names the very stage that is gated, which always equals itself"
        raise SpecError.of(place, rule.conditions(), message, remedy)
    rows = {row.Stage.id: row for row in stages.list_run_stages(session, entry["run_id"])}
    held = rows[entry["stage_id"]]
    beside_it = _beside(facts, stage, held.Stage, entry["device"], timed, _last(session, held.Stage, entry["device"]))
    return FoundChampion(place, entry["run_id"], held.RunStage.position, held.Stage.label, entry["device"], beside_it)


def _entry(session: Session, place: str, rule: ChampionRule, project_id: int, stage: Stage) -> dict[str, Any]:
    named = rule.conditions()
    known = champions.list_champions(session, project_id)
    here = [entry for entry in known if entry["task_hash"] == stage.task_hash]
    fitting = [entry for entry in here if _fits(entry["device"], named)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        remedy = f"Name more of {DEVICE}: {_list(fitting)}."
        raise SpecError.of(place, named, f"fits {len(fitting)} devices with a champion", remedy)
    if elsewhere := sorted({entry["task"] for entry in known if _fits(entry["device"], named)}):
        message = f"has a champion of {', '.join(elsewhere)} only, and the run was scored on {stage.task}"
        if elsewhere == [stage.task]:
            message = f"has a champion of {stage.task} with other data than the run was scored on"
        raise SpecError.of(place, named, message, "Gate a run on the champion's task, or name a champion on this one.")
    if here:
        raise SpecError.of(place, named, "is no device with a champion", f"There is one for {_list(here)}.")
    remedy = "Name one on a run's page, under Stages, or leave it out of the policy."
    raise SpecError.of(place, named, f"there is no champion of {stage.task} in the run's project", remedy)


def _fits(device: Conditions, named: dict[str, str | int]) -> bool:
    return all(getattr(device, name) == value for name, value in named.items())


def _list(entries: Sequence[dict[str, Any]]) -> str:
    return "; ".join(condition_name(entry["device"]) for entry in entries)


def _last(session: Session, champion: Stage, device: Conditions) -> Timed | None:
    found = champions.find_latency(session, champion.id, device)
    return None if found is None else _timed(found)


def _timed(row: Any) -> Timed:
    return Timed(LatencyRow(**{name: getattr(row, name) for name in ROW}), row.stage_id, row.reference_stage_id)


def _beside(
    facts: Facts,
    stage: Stage,
    champion: Stage,
    device: Conditions,
    timed: Sequence[Latency],
    last: Timed | None,
) -> Facts:
    """The facts with all that is relative to a reference relative to the champion."""
    told = paired_scores(stage.score_name, stage.key, champion.key)
    untested = told if isinstance(told, str) else ""
    own = [_timed(row) for row in timed]
    latencies = [replace(o.row, ratio=None) if last is None else beside(o, last) for o in own]
    return replace(
        facts,
        reference_size_bytes=champion.size_bytes,
        is_reference=False,
        comparison=None if isinstance(told, str) else told,
        latencies=latencies,
        champion=ChampionFacts(champion.score, asdict(device), untested),
    )
