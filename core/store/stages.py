"""Stages: the measured results of runs, shared by all runs that need them. The caller commits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from core.analysis.replicates import Replicate, replicate
from core.measured import Comparison, Fidelity, FoundRun, FoundStage, LatencyRow, MeasuredStage
from core.store.models import Artifact, Latency, OperatingPoint, Run, RunSource, RunStage, RunStatus, Stage
from core.store.rows import Rows
from core.store.upsert import upsert

FIDELITY = tuple(field.name for field in fields(Fidelity))


def find_stage(session: Session, key: str) -> FoundStage | None:
    """The recorded stage with this key and its latencies; None if there is none."""
    query = select(Stage, Artifact.manifest_sha256).outerjoin(Artifact, Artifact.stage_id == Stage.id)
    row = session.execute(query.where(Stage.key == key)).one_or_none()
    if row is None:
        return None
    stage = row.Stage
    measured = MeasuredStage(**{field.name: getattr(stage, field.name) for field in fields(MeasuredStage)})
    latencies = _latest_latencies(session, stage.id)
    return FoundStage(stage.id, measured, row.manifest_sha256, latencies, _fidelities(session, stage.id))


def find_stage_id(session: Session, key: str) -> int | None:
    """Id of the recorded stage with this key."""
    return session.scalar(select(Stage.id).where(Stage.key == key))


def list_keys(session: Session, stage_ids: Iterable[int]) -> dict[int, str]:
    """Keys of stages by their ids."""
    query = select(Stage.id, Stage.key).where(Stage.id.in_(list(stage_ids)))
    return {row.id: row.key for row in session.execute(query)}


def reference_size(reference: type[Stage]) -> ColumnElement[Any]:
    """The bytes that sizes are compared with: those of the user's files if the reference was loaded from them."""
    return func.coalesce(reference.checkpoint_bytes, reference.size_bytes)


def add_stage(session: Session, measured: MeasuredStage, address: str, n_bytes: int, manifest_sha256: str) -> int:
    """Record a stage with its artifact and return its id; results already recorded under its key are kept.

    Only its peak memory is replaced by the latest one: it belongs to one machine, named in the stage's details. Its
    artifact is the latest one, which a run may have computed again.
    """
    memory = () if measured.peak_memory_bytes is None else ("peak_memory_bytes", "reload_max_error", "details")
    upsert(session, Stage, [asdict(measured)], ["key"], memory)
    stage_id = session.scalars(select(Stage.id).where(Stage.key == measured.key)).one()
    artifact = {"stage_id": stage_id, "address": address, "bytes": n_bytes, "manifest_sha256": manifest_sha256}
    upsert(session, Artifact, [artifact], ["stage_id"], ("address", "bytes", "manifest_sha256"))
    return stage_id


def attach_stage(
    session: Session,
    run_id: int,
    position: int,
    stage_id: int,
    *,
    reused: bool,
    reference_stage_id: int | None,
    comparison: Comparison | None,
    fidelity: Fidelity | None = None,
) -> None:
    """Record that a run has a stage at a position (0 is its source); idempotent.

    The first run with a stage determines its recipe and seeds.
    """
    run = session.execute(select(Run.project_id, Run.spec).where(Run.id == run_id)).one()
    if position >= 0:
        _say_what_it_repeats(session, stage_id, run_id, run.spec, position)
    row = {
        "run_id": run_id,
        "position": position,
        "stage_id": stage_id,
        "project_id": run.project_id,
        "reference_stage_id": reference_stage_id,
        "reused": reused,
        "score_delta": comparison.delta if comparison else None,
        "score_delta_low": comparison.low if comparison else None,
        "score_delta_high": comparison.high if comparison else None,
        "p_value": comparison.p_value if comparison else None,
        **(asdict(fidelity) if fidelity else dict.fromkeys(FIDELITY)),
    }
    changed = set(row) - {"run_id", "position", "reused"}
    upsert(session, RunStage, [row], ["run_id", "position"], changed)


def _say_what_it_repeats(session: Session, stage_id: int, run_id: int, spec: Mapping[str, Any], position: int) -> None:
    stage = session.execute(select(Stage.recipe_hash, Stage.task_hash).where(Stage.id == stage_id)).one()
    if stage.recipe_hash is None:
        found = replicate(spec, position, stage.task_hash, _last_stages(session, run_id))
        values = {"recipe_hash": found.recipe, "seeds_hash": found.seeds}
        session.execute(update(Stage).where(Stage.id == stage_id).values(values))


def _last_stages(session: Session, run_id: int) -> dict[int, Replicate]:
    """The replicates of the last stages of a run's sources."""
    query = (
        select(RunStage.run_id, Stage.recipe_hash, Stage.seeds_hash)
        .join(Stage, Stage.id == RunStage.stage_id)
        .where(RunStage.run_id.in_(select(RunSource.source_id).where(RunSource.run_id == run_id)))
        .where(Stage.recipe_hash.is_not(None))
        .order_by(RunStage.position)
    )
    return {row.run_id: Replicate(row.recipe_hash, row.seeds_hash) for row in session.execute(query)}


def set_latencies(
    session: Session, run_id: int, stage_id: int, rows: Iterable[LatencyRow], reference_stage_id: int | None
) -> None:
    """Record a run's latencies of a stage; replaces its earlier ones."""
    session.execute(delete(Latency).where(Latency.run_id == run_id, Latency.stage_id == stage_id))
    common = {"run_id": run_id, "stage_id": stage_id, "reference_stage_id": reference_stage_id}
    values = [{**common, **asdict(row)} for row in rows]
    if values:
        session.execute(insert(Latency), values)


def add_operating_points(session: Session, stage_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add settings of a stage that need no new weights: name, value, score, score_low, score_high, macs."""
    changed = ("score", "score_low", "score_high", "macs")
    upsert(
        session, OperatingPoint, [{"stage_id": stage_id, **row} for row in rows], ["stage_id", "name", "value"], changed
    )


def list_run_stages(session: Session, run_id: int) -> Rows:
    """A run's stages in order: RunStage, Stage, Artifact, and the reference's size_bytes and macs."""
    reference = aliased(Stage)
    query = (
        select(
            RunStage,
            Stage,
            Artifact,
            reference_size(reference).label("reference_size_bytes"),
            reference.macs.label("reference_macs"),
            reference.score.label("reference_score"),
        )
        .join(Stage, Stage.id == RunStage.stage_id)
        .outerjoin(Artifact, Artifact.stage_id == Stage.id)
        .outerjoin(reference, reference.id == RunStage.reference_stage_id)
        .where(RunStage.run_id == run_id)
        .order_by(RunStage.position)
    )
    return session.execute(query).all()


def list_latencies(session: Session, run_ids: Iterable[int]) -> Rows:
    """Latencies of runs by stage: run_id, position and every column of `latency`."""
    query = (
        select(RunStage.position, *Latency.__table__.columns)
        .join(RunStage, (RunStage.run_id == Latency.run_id) & (RunStage.stage_id == Latency.stage_id))
        .where(Latency.run_id.in_(list(run_ids)))
        .order_by(Latency.run_id, RunStage.position, Latency.runtime, Latency.batch, Latency.phase)
    )
    return session.execute(query).all()


def list_operating_points(session: Session, stage_ids: Iterable[int]) -> Sequence[OperatingPoint]:
    """Operating points of stages."""
    query = select(OperatingPoint).where(OperatingPoint.stage_id.in_(list(stage_ids)))
    return session.scalars(query.order_by(OperatingPoint.stage_id, OperatingPoint.name, OperatingPoint.value)).all()


def find_run_stage(session: Session, run_id: int, position: int | None = None) -> tuple[str, str | None] | None:
    """Key of a finished run's stage (by default its last one, for `run:<id>`), and its artifact's URL.

    The URL is None if there is no artifact: removed, damaged, or imported without its weights.
    """
    query = (
        select(Stage.key, Artifact.address)
        .join(RunStage, RunStage.stage_id == Stage.id)
        .outerjoin(Artifact, Artifact.stage_id == Stage.id)
        .join(Run, Run.id == RunStage.run_id)
        .where(Run.id == run_id, Run.status == RunStatus.DONE)
        .order_by(RunStage.position.desc())
        .limit(1)
    )
    if position is not None:
        query = query.where(RunStage.position == position)
    row = session.execute(query).one_or_none()
    return (row.key, row.address) if row is not None else None


def find_run(session: Session, run_id: int) -> FoundRun | None:
    """A finished run that another one starts from or compares with."""
    last = find_run_stage(session, run_id)
    return FoundRun(last[0], find_reference_key(session, run_id)) if last else None


def find_reference_key(session: Session, run_id: int) -> str | None:
    """Key of the stage that a run's last stage was compared with."""
    query = (
        select(Stage.key)
        .join(RunStage, RunStage.reference_stage_id == Stage.id)
        .where(RunStage.run_id == run_id)
        .order_by(RunStage.position.desc())
        .limit(1)
    )
    return session.scalar(query)


def _fidelities(session: Session, stage_id: int) -> dict[str, Fidelity]:
    """Fidelity of a stage by the reference's key."""
    query = (
        select(RunStage, Stage.key)
        .join(Stage, Stage.id == RunStage.reference_stage_id)
        .where(RunStage.stage_id == stage_id, RunStage.has_fidelity(RunStage))
        .order_by(RunStage.run_id)
    )
    found = {key: fidelity_of(place) for place, key in session.execute(query)}
    return {key: fidelity for key, fidelity in found.items() if fidelity is not None}


def fidelity_of(place: RunStage) -> Fidelity | None:
    """The fidelity of a stage at its position in a run; None if it was not measured."""
    found = Fidelity(**{name: getattr(place, name) for name in FIDELITY})
    return None if found == Fidelity() else found


def _latest_latencies(session: Session, stage_id: int) -> list[tuple[str | None, LatencyRow]]:
    """The latest latency for each set of conditions, with the key of its reference."""
    reference = aliased(Stage)
    query = (
        select(Latency, reference.key)
        .outerjoin(reference, reference.id == Latency.reference_stage_id)
        .where(Latency.stage_id == stage_id, Latency.operating_point_id.is_(None))
        .order_by(Latency.id)
    )
    names = [field.name for field in fields(LatencyRow)]
    last: dict[tuple[Any, ...], tuple[str | None, LatencyRow]] = {}
    for latency, key in session.execute(query):
        row = LatencyRow(**{name: getattr(latency, name) for name in names})
        conditions = (row.hardware, row.software, row.runtime, row.dtype, row.threads, row.batch, row.length, row.phase)
        last[(key, *conditions)] = (key, row)
    return list(last.values())
