"""Workers: what they are, what they provide, when they were last seen. The caller commits."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from core.store.clock import now
from core.store.models import Run, RunStatus, Worker
from core.store.rows import Rows

KEPT_SECONDS = 3600.0  # a worker that stopped or was lost is shown for this long


def register_worker(
    session: Session,
    name: str,
    device: str,
    *,
    hardware: Mapping[str, Any],
    offers: Mapping[str, str],
    provides: Iterable[str],
) -> int:
    """Register a worker that starts (again, under the same name) and return its id."""
    worker = session.scalars(select(Worker).where(Worker.name == name)).one_or_none() or Worker(name=name)
    worker.device = device
    worker.hardware = dict(hardware)
    worker.offers = dict(offers)
    worker.provides = sorted(provides)
    worker.stopped_at = None
    session.add(worker)
    session.flush()
    session.execute(update(Worker).where(Worker.id == worker.id).values(started_at=now(), last_seen_at=now()))
    return worker.id


def record_heartbeat(session: Session, worker_id: int) -> None:
    """Record a heartbeat of the worker."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(last_seen_at=now(), stopped_at=None))


def stop_worker(session: Session, worker_id: int) -> None:
    """Record that the worker has stopped."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(last_seen_at=now(), stopped_at=now()))


def list_workers(session: Session, lost_after: float = 60.0) -> Rows:
    """Live and recent workers: every column, their current run, `age` in seconds since last seen, and `lost`."""
    age = now() - Worker.last_seen_at
    query = (
        select(
            *Worker.__table__.columns,
            Run.id.label("run_id"),
            Run.name.label("run_name"),
            Run.recipe.label("run_recipe"),
            Run.progress.label("run_progress"),
            age.label("age"),
            (Worker.stopped_at.is_(None) & (age > lost_after)).label("lost"),
        )
        .outerjoin(Run, (Run.worker_id == Worker.id) & (Run.status == RunStatus.RUNNING))
        .where(or_(Worker.stopped_at.is_(None), Worker.stopped_at > now() - KEPT_SECONDS), age < 24 * KEPT_SECONDS)
        .order_by(Worker.stopped_at.is_not(None), Worker.device, Worker.name)
    )
    return session.execute(query).all()


def forget_workers(session: Session, unseen_seconds: float) -> None:
    """Remove workers that were not seen for long and that no run refers to."""
    unseen = Worker.last_seen_at < now() - unseen_seconds
    unnamed = Worker.id.not_in(select(Run.worker_id).where(Run.worker_id.is_not(None)))
    session.execute(delete(Worker).where(unseen, unnamed))
