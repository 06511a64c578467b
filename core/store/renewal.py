"""Damaged and recomputed stages: replacing their results and notifying runs. The caller commits."""

import time
from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from core.integrity import DamagedArtifact
from core.measured import Comparison, LatencyRow, MeasuredStage
from core.store.models import Artifact, Event, Latency, Run, RunSource, RunStage, Stage

RESULTS = ("score", "score_low", "score_high", "size_bytes", "macs", "nonzeros")  # what makes a result another one
COMPARED = ("score_delta", "score_delta_low", "score_delta_high", "p_value")
CONDITIONS = ("hardware", "software", "runtime", "dtype", "threads", "batch", "length", "phase")


def report_damage(session: Session, damaged: DamagedArtifact, *, found_by: str, except_run: int | None = None) -> None:
    """Record that a stage's artifact was damaged and discarded, and warn every run that used it."""
    stage = session.execute(select(Stage.id, Stage.label).where(Stage.key == damaged.key)).one_or_none()
    if stage is None:
        return
    if damaged.is_lost:
        session.execute(delete(Artifact).where(Artifact.stage_id == stage.id))
    text = (
        f"{found_by} found damage in the artifact of {stage.label}, which this run used: {damaged}. It was "
        "discarded. The next run that needs it computes it again. Requeue this run to do so now."
    )
    _tell(session, stage.id, text, except_run)


def replace_results(
    session: Session,
    run_id: int,
    measured: MeasuredStage,
    latencies: Iterable[LatencyRow],
    reference_key: str | None,
) -> None:
    """Replace the recorded results of a stage, if there are any, with new ones.

    If the two differ, runs that used the stage are warned, their latencies under the same conditions are also
    replaced, and comparisons with the old results are dropped: see `list_outdated`.
    """
    stage = session.scalars(select(Stage).where(Stage.key == measured.key)).one_or_none()
    if stage is None:
        return
    differs = any(getattr(stage, name) != getattr(measured, name) for name in RESULTS)
    text = (
        f"Run {run_id} computed and measured {stage.label} again, and its results differ: {stage.score_name} "
        f"{stage.score:.6g} → {measured.score:.6g} {measured.score_unit}, size {stage.size_bytes:,} → "
        f"{measured.size_bytes:,} bytes. This page shows the new ones. Later stages were not computed again."
    )
    for name, value in asdict(measured).items():
        setattr(stage, name, value)
    session.flush()
    if differs:
        _tell(session, stage.id, text, except_run=run_id)
        outdated = dict.fromkeys(COMPARED)
        session.execute(update(RunStage).where(_compared_with(stage.id)).values(outdated))
        _replace_latencies(session, stage.id, latencies, reference_key)


def list_outdated(session: Session, key: str) -> list[tuple[str, str]]:
    """Keys (stage, reference) of pairs with the stage `key` in them that lost their comparison."""
    stage, reference = aliased(Stage), aliased(Stage)
    query = (
        select(stage.key, reference.key)
        .select_from(RunStage)
        .join(stage, stage.id == RunStage.stage_id)
        .join(reference, reference.id == RunStage.reference_stage_id)
        .where((stage.key == key) | (reference.key == key), stage.id != reference.id, RunStage.score_delta.is_(None))
        .distinct()
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def compare(session: Session, key: str, reference_key: str, comparison: Comparison) -> None:
    """Record the comparison of a pair of stages in every run that has none."""
    ids = [select(Stage.id).where(Stage.key == each).scalar_subquery() for each in (key, reference_key)]
    values = (comparison.delta, comparison.low, comparison.high, comparison.p_value)
    lacking = (RunStage.stage_id == ids[0], RunStage.reference_stage_id == ids[1], RunStage.score_delta.is_(None))
    changed = dict(zip(COMPARED, values, strict=True))
    session.execute(update(RunStage).where(*lacking).values(changed).execution_options(synchronize_session=False))


def _compared_with(stage_id: int) -> ColumnElement[bool]:
    """Positions of a stage and of stages compared with it."""
    return (RunStage.stage_id == stage_id) | (RunStage.reference_stage_id == stage_id)


def _replace_latencies(session: Session, stage_id: int, rows: Iterable[LatencyRow], reference_key: str | None) -> None:
    """Replace every run's latencies of a stage under these conditions and against this reference with `rows`."""
    reference_id = session.scalar(select(Stage.id).where(Stage.key == reference_key)) if reference_key else None
    for row in rows:
        values = asdict(row)
        same = [getattr(Latency, name).is_not_distinct_from(values[name]) for name in CONDITIONS]
        same += [Latency.reference_stage_id.is_not_distinct_from(reference_id), Latency.operating_point_id.is_(None)]
        session.execute(update(Latency).where(Latency.stage_id == stage_id, *same).values(values))


def _tell(session: Session, stage_id: int, text: str, except_run: int | None) -> None:
    """Add a warning to the log of every run that has a stage, compares with it or starts from a run ending in it."""
    later = select(func.max(RunStage.position)).where(RunStage.run_id == RunSource.source_id).correlate(RunSource)
    ends_with_it = select(RunStage).where(
        RunStage.run_id == RunSource.source_id,
        RunStage.stage_id == stage_id,
        RunStage.position == later.scalar_subquery(),
    )
    having = select(RunStage.run_id).where(_compared_with(stage_id))
    naming = select(RunSource.run_id).where(ends_with_it.exists())
    query = select(Run.id, Run.attempt).where(Run.id.in_(having.union(naming)))
    lines = [
        {"run_id": run.id, "attempt": run.attempt, "at": time.time(), "level": "warning", "message": text}
        for run in session.execute(query)
        if run.id != except_run
    ]
    if lines:
        session.execute(insert(Event), lines)
