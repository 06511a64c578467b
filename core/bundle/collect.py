"""Collects a run from the store into the documents of a bundle. The caller owns the session."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.bundle.contents import (
    ArtifactDocument,
    BundledNote,
    CurvesDocument,
    LatencyDocument,
    Line,
    LogDocument,
    OperatingPointDocument,
    PlaceDocument,
    RunDocument,
    StageDocument,
    StagesDocument,
)
from core.bundle.errors import BundleError
from core.measured import LatencyRow, MeasuredStage
from core.store import events, runs, stages
from core.store.models import UNFINISHED, Artifact, Latency, OperatingPoint, Point, RunStage, Stage
from core.store.rows import Columns

MOST_LINES = 10_000  # of the log, the last ones


def run_document(session: Session, run_id: int) -> RunDocument:
    """The run itself; raises BundleError if there is none, or if it has not ended."""
    found = runs.run_details(session, run_id)
    if found is None:
        raise BundleError(f"There is no run {run_id}.")
    run = found.Run
    if run.status in UNFINISHED:
        raise BundleError(f"Run {run_id} is {run.status.value}. Only finished runs can be bundled.")
    return RunDocument(
        number=run.id,
        name=run.name,
        spec=run.spec,
        status=run.status,
        failure=run.failure,
        failure_message=run.failure_message,
        attempt=run.attempt,
        compute_seconds=run.compute_seconds,
        environment={**run.environment, **_worker(found)},
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        tags=runs.list_tags(session, run_id),
        notes=[
            BundledNote(text=n.text, author=n.author, created_at=n.created_at) for n in runs.list_notes(session, run_id)
        ],
    )


def _worker(found: Columns) -> dict[str, Any]:
    """The worker that executed the run, for which another store has no row."""
    if found.worker is None:
        return {}
    return {"worker": {"name": found.worker, "hardware": found.hardware}}


def collect_stages(session: Session, run_id: int) -> StagesDocument:
    """The run's stages with their positions, and those that it compares with."""
    places = session.scalars(select(RunStage).where(RunStage.run_id == run_id).order_by(RunStage.position)).all()
    latencies = session.scalars(select(Latency).where(Latency.run_id == run_id).order_by(Latency.id)).all()
    named = {place.stage_id for place in places} | {latency.stage_id for latency in latencies}
    references = [place.reference_stage_id for place in places] + [row.reference_stage_id for row in latencies]
    named |= {stage_id for stage_id in references if stage_id is not None}
    known = {stage.id: stage for stage in session.scalars(select(Stage).where(Stage.id.in_(named)).order_by(Stage.id))}
    artifacts = {a.stage_id: a for a in session.scalars(select(Artifact).where(Artifact.stage_id.in_(named)))}
    operating: dict[int, list[OperatingPoint]] = {}
    for point in stages.list_operating_points(session, named):
        operating.setdefault(point.stage_id, []).append(point)
    keys = {stage_id: stage.key for stage_id, stage in known.items()}
    return StagesDocument(
        stages=[_stage(stage, artifacts.get(i), operating.get(i, [])) for i, stage in known.items()],
        places=[
            _place(place, keys, [row for row in latencies if row.stage_id == place.stage_id], operating)
            for place in places
        ],
    )


def _stage(stage: Stage, artifact: Artifact | None, operating: Iterable[OperatingPoint]) -> StageDocument:
    return StageDocument(
        measured=MeasuredStage(**{field.name: getattr(stage, field.name) for field in fields(MeasuredStage)}),
        created_at=stage.created_at,
        artifact=artifact and ArtifactDocument(bytes=artifact.bytes, manifest_sha256=artifact.manifest_sha256),
        operating_points=[
            OperatingPointDocument(**{name: getattr(point, name) for name in OperatingPointDocument.model_fields})
            for point in operating
        ],
    )


def _place(
    place: RunStage, keys: dict[int, str], latencies: Iterable[Latency], operating: dict[int, list[OperatingPoint]]
) -> PlaceDocument:
    order = {point.id: index for index, point in enumerate(operating.get(place.stage_id, []))}
    same = ("position", "reused", "p_value", "score_delta", "score_delta_low", "score_delta_high")
    return PlaceDocument(
        **{name: getattr(place, name) for name in same},
        key=keys[place.stage_id],
        reference_key=_key(keys, place.reference_stage_id),
        fidelity=stages.fidelity_of(place),
        latencies=[
            LatencyDocument(
                row=LatencyRow(**{field.name: getattr(row, field.name) for field in fields(LatencyRow)}),
                reference_key=_key(keys, row.reference_stage_id),
                operating_point=None if row.operating_point_id is None else order[row.operating_point_id],
            )
            for row in latencies
        ],
    )


def _key(keys: dict[int, str], stage_id: int | None) -> str | None:
    return None if stage_id is None else keys[stage_id]


def collect_curves(session: Session, run_id: int) -> CurvesDocument:
    """Every point of every curve that is a number."""
    query = select(Point.curve, Point.step, Point.value).where(Point.run_id == run_id)
    curves: dict[str, list[tuple[int, float]]] = {}
    for curve, step, value in session.execute(query.order_by(Point.curve, Point.step)):
        if value == value:
            curves.setdefault(curve, []).append((step, value))
    return CurvesDocument(curves=curves)


def log_document(session: Session, run_id: int) -> LogDocument:
    """Warnings and errors."""
    lines = events.load_last_events(session, run_id, MOST_LINES, ("warning", "error"))
    return LogDocument(lines=[Line(at=e.at, attempt=e.attempt, level=e.level, message=e.message) for e in lines])
