"""Champions: the stage that a team ships to a device, with its history. The caller owns the session.

A device is the conditions of a latency: hardware, runtime, threads, batch, length and phase. Entries are never changed
or deleted: a later one for the same task and device replaces an earlier one.
"""

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.store.models import Champion, Latency, RunStage, Stage, User
from core.store.tradeoffs.filters import Conditions

_DEVICE = [getattr(Champion, field.name) for field in fields(Conditions)]


class NotTimedError(ValueError):
    """The stage was never timed on the device."""


def crown(
    session: Session, *, project_id: int, device: Conditions, run_id: int, position: int, user_id: int, note: str = ""
) -> Champion:
    """Make a run's stage the champion of a device; raises NotTimedError if it was not timed there."""
    query = (
        select(Stage.id, Stage.task_hash)
        .join(RunStage, RunStage.stage_id == Stage.id)
        .join(Latency, Latency.stage_id == Stage.id)
        .where(RunStage.run_id == run_id, RunStage.position == position, RunStage.project_id == project_id)
        .where(*(getattr(Latency, name).is_not_distinct_from(value) for name, value in asdict(device).items()))
    )
    stage = session.execute(query.limit(1)).one_or_none()
    if stage is None:
        raise NotTimedError(f"Stage {position} of run {run_id} was not timed under these conditions.")
    told = {"run_id": run_id, "user_id": user_id, "note": note}
    entry = Champion(project_id=project_id, task_hash=stage.task_hash, stage_id=stage.id, **told, **asdict(device))
    session.add(entry)
    session.flush()
    return entry


def dethrone(
    session: Session, *, project_id: int, task_hash: str, device: Conditions, user_id: int, note: str = ""
) -> None:
    """Leave a device without a champion."""
    told = {"project_id": project_id, "task_hash": task_hash, "user_id": user_id, "note": note}
    session.add(Champion(**told, **asdict(device)))
    session.flush()


def list_champions(session: Session, project_id: int, task_hash: str | None = None) -> list[dict[str, Any]]:
    """The champion of each device that has one, of one task or of all: columns of `list_history`, by hardware."""
    last = select(func.max(Champion.id)).where(Champion.project_id == project_id)
    if task_hash is not None:
        last = last.where(Champion.task_hash == task_hash)
    last = last.group_by(Champion.task_hash, *_DEVICE)
    found = _entries(session, Champion.id.in_(last), Champion.stage_id.is_not(None))
    return sorted(found, key=lambda row: (row["device"].hardware, row["id"]))


def list_history(session: Session, project_id: int, task_hash: str) -> list[dict[str, Any]]:
    """Every entry of a task, newest first: id, device, stage_id, run_id, user, note, created_at.

    And of the stage label, model, task, task_hash, size_bytes, score, score_unit and p50_ms on the device; None where
    the title was taken away.
    """
    return _entries(session, Champion.project_id == project_id, Champion.task_hash == task_hash)


def list_titles(session: Session, run_id: int) -> list[dict[str, Any]]:
    """The current titles of a run's stages: columns of `list_history`."""
    mine = select(RunStage.stage_id).where(RunStage.run_id == run_id)
    query = select(Champion.project_id, Champion.task_hash).where(Champion.stage_id.in_(mine)).distinct()
    stage_ids = set(session.scalars(mine))
    titles = [row for place in session.execute(query) for row in list_champions(session, *place)]
    return [row for row in titles if row["stage_id"] in stage_ids]


def find_latency(session: Session, stage_id: int, device: Conditions) -> Latency | None:
    """The last measurement of a stage on a device; None if none is recorded."""
    same = [getattr(Latency, name).is_not_distinct_from(value) for name, value in asdict(device).items()]
    query = select(Latency).where(Latency.stage_id == stage_id, Latency.operating_point_id.is_(None), *same)
    return session.scalars(query.order_by(Latency.id.desc()).limit(1)).one_or_none()


def _entries(session: Session, *conditions: Any) -> list[dict[str, Any]]:
    alike = [
        getattr(Latency, field.name).is_not_distinct_from(getattr(Champion, field.name)) for field in fields(Conditions)
    ]
    timed = select(func.max(Latency.id)).where(Latency.stage_id == Champion.stage_id, *alike).correlate(Champion)
    query = (
        select(
            Champion.id, Champion.stage_id, Champion.run_id, User.name.label("user"), Champion.note,
            Champion.created_at, Stage.label, Stage.model, Stage.task, Stage.task_hash, Stage.size_bytes, Stage.score,
            Stage.score_unit, Latency.p50_ms, *_DEVICE,
        )
        .join(User, User.id == Champion.user_id)
        .outerjoin(Stage, Stage.id == Champion.stage_id)
        .outerjoin(Latency, Latency.id == timed.scalar_subquery())
        .where(*conditions)
        .order_by(Champion.id.desc())
    )  # fmt: skip
    names = [field.name for field in fields(Conditions)]
    return [
        {
            **{name: value for name, value in row.items() if name not in names},
            "device": Conditions(*(row[n] for n in names)),
        }
        for row in session.execute(query).mappings()
    ]
