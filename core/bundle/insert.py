"""Imports a validated bundle into a store: one run with everything that belongs to it. The caller owns the session."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.bundle.contents import OperatingPointDocument, PlaceDocument, StageDocument
from core.bundle.read import Bundle
from core.measured import Comparison
from core.store import curves, events, runs, stages
from core.store.clock import now
from core.store.models import Artifact, Latency, Note, OperatingPoint, Run, RunStatus, Stage, User
from core.store.upsert import upsert

_SAME = (
    "name",
    "status",
    "failure",
    "failure_message",
    "attempt",
    "compute_seconds",
    "environment",
    "created_at",
    "started_at",
    "ended_at",
)


def find_identical(session: Session, bundle: Bundle, project_id: int) -> int | None:
    """The project's run with the same spec and times: the bundled run itself, or an earlier import of it."""
    run = bundle.run
    same = (
        Run.project_id == project_id,
        Run.spec_hash == bundle.spec.hash,
        Run.created_at == run.created_at,
        Run.started_at.is_not_distinct_from(run.started_at),
        Run.ended_at.is_not_distinct_from(run.ended_at),
    )
    return session.scalar(select(Run.id).where(*same).order_by(Run.id).limit(1))


def list_differing(session: Session, bundle: Bundle) -> list[str]:
    """Labels of stages that the store already has with another score or size, which it keeps."""
    by_key = {stage.measured.key: stage.measured for stage in bundle.stages.stages}
    known = session.scalars(select(Stage).where(Stage.key.in_(list(by_key))))
    return [
        stage.label
        for stage in known
        if (stage.score, stage.size_bytes) != (by_key[stage.key].score, by_key[stage.key].size_bytes)
    ]


def add_run(session: Session, bundle: Bundle, *, project_id: int, owner_id: int, needs: Iterable[str]) -> int:
    """Add the run as a finished one of this owner and return its number.

    Stages are shared with existing ones of equal key. An artifact is recorded if the bundle has its weights.
    """
    whose = {"project_id": project_id, "owner_id": owner_id}
    run = runs.submit_run(session, bundle.spec, **whose, needs=needs, from_elsewhere=True)
    told = {name: getattr(bundle.run, name) for name in _SAME}
    for name, value in told.items():
        setattr(run, name, value)
    run.progress = 1.0 if run.status == RunStatus.DONE else 0.0
    session.flush()
    for tag in bundle.run.tags:
        runs.add_tag(session, run.id, tag)
    runs.rename_run(session, run.id, run.name)  # what is searched names it
    _add_notes(session, bundle, run.id, owner_id)
    ids = {stage.measured.key: _add_stage(session, bundle, stage) for stage in bundle.stages.stages}
    operating = {stage.measured.key: stage.operating_points for stage in bundle.stages.stages}
    for place in bundle.stages.places:
        _add_place(session, run.id, place, ids, operating[place.key])
    drawn = bundle.curves.curves.items()
    curves.add_points(session, run.id, [(curve, step, value) for curve, pairs in drawn for step, value in pairs])
    _add_log(session, bundle, run.id)
    session.flush()
    return int(run.id)


def _add_notes(session: Session, bundle: Bundle, run_id: int, owner_id: int) -> None:
    """Add the notes as the importing user's; notes of other authors begin with their names."""
    importer = session.get_one(User, owner_id).name
    for note in bundle.run.notes:
        text = note.text if note.author == importer else f"{note.author}: {note.text}"
        session.add(Note(run_id=run_id, user_id=owner_id, text=text, created_at=note.created_at))


def _add_stage(session: Session, bundle: Bundle, stage: StageDocument) -> int:
    row = {**asdict(stage.measured), "created_at": stage.created_at}
    upsert(session, Stage, [row], ["key"])
    key = stage.measured.key
    stage_id = session.scalars(select(Stage.id).where(Stage.key == key)).one()
    if stage.artifact is not None and bundle.has_weights(key):
        artifact = {"stage_id": stage_id, "address": f"{key[:2]}/{key}", **stage.artifact.model_dump()}
        upsert(session, Artifact, [artifact], ["stage_id"])
    operating = [{"stage_id": stage_id, **point.model_dump()} for point in stage.operating_points]
    upsert(session, OperatingPoint, operating, ["stage_id", "name", "value"])
    return int(stage_id)


def _add_place(
    session: Session, run_id: int, place: PlaceDocument, ids: dict[str, int], operating: list[OperatingPointDocument]
) -> None:
    stage_id, reference_id = ids[place.key], _id(ids, place.reference_key)
    compared = (place.score_delta, place.score_delta_low, place.score_delta_high, place.p_value)
    known = [value for value in compared if value is not None]
    stages.attach_stage(
        session,
        run_id,
        place.position,
        stage_id,
        reused=place.reused,
        reference_stage_id=reference_id,
        comparison=Comparison(*known) if len(known) == 4 else None,
        fidelity=place.fidelity,
    )
    numbers = _operating_numbers(session, stage_id, operating)
    rows: list[dict[str, Any]] = []
    for latency in place.latencies:
        at = None if latency.operating_point is None else numbers[latency.operating_point]
        places = {"reference_stage_id": _id(ids, latency.reference_key), "operating_point_id": at}
        rows.append({"run_id": run_id, "stage_id": stage_id, **places, **asdict(latency.row)})
    if rows:
        session.execute(insert(Latency), rows)


def _operating_numbers(session: Session, stage_id: int, operating: list[OperatingPointDocument]) -> list[int]:
    """Ids of a stage's operating points, in the bundle's order."""
    if not operating:
        return []
    known = {(point.name, point.value): point.id for point in stages.list_operating_points(session, [stage_id])}
    return [known[point.name, point.value] for point in operating]


def _id(ids: dict[str, int], key: str | None) -> int | None:
    return None if key is None else ids[key]


def _add_log(session: Session, bundle: Bundle, run_id: int) -> None:
    """Add the lines of the log and their origin."""
    by_attempt: dict[int, list[tuple[float, str, str]]] = {}
    for line in bundle.log.lines:
        by_attempt.setdefault(line.attempt, []).append((line.at, line.level, line.message))
    for attempt, lines in by_attempt.items():
        events.add_events(session, run_id, attempt, lines)
    origin = f"imported from a bundle of run {bundle.run.number}, written by Slimboard {bundle.release}"
    at = session.scalar(select(now())) or 0.0
    events.add_events(session, run_id, bundle.run.attempt, [(at, "info", origin)])
