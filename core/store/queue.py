"""The queue: claiming runs, keeping leases, and ending runs.

Every change that two processes may attempt at once is one statement. Writes of a run's process are conditional
on (run, attempt), so a worker that lost a run cannot write to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, Update, case, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from core.store.clock import now
from core.store.models import Artifact, Event, FailureClass, Run, RunNeed, RunStatus, Stage
from core.store.rows import Rows
from core.store.runs import ENDED, MAX_ATTEMPTS

RETRIED = (FailureClass.INFRASTRUCTURE, FailureClass.LOST)
FREED: dict[str, Any] = {"lease_until": None, "computing_key": None}


@dataclass(frozen=True)
class Ended:
    """How an attempt at a run ended; `failure` is None with status DONE or CANCELLED."""

    status: RunStatus
    failure: FailureClass | None = None
    message: str = ""
    seconds: float = 0.0  # the child's wall time


def claim_next_run(
    session: Session, worker_id: int, device: str, provides: Iterable[str], lease_seconds: float
) -> Run | None:
    """Claim the first queued run that this worker can execute, for an attempt with a lease; None if there is none.

    Skipped are runs with a need that the worker does not provide, and runs that wait for a stage
    that another run is computing.
    """
    waiting, busy = aliased(Run), aliased(Run)
    unmet = exists().where(RunNeed.run_id == waiting.id, RunNeed.need.not_in(list(provides)))
    computed_elsewhere = exists().where(busy.computing_key == waiting.next_key)
    candidate = (
        select(waiting.id)
        .where(
            waiting.status == RunStatus.QUEUED,
            waiting.device.in_((device, "any")),
            ~unmet,
            ~computed_elsewhere,
        )
        .order_by(waiting.position, waiting.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=waiting)
    )
    claim = (
        update(Run)
        .where(Run.id == candidate.scalar_subquery())
        .values(
            status=RunStatus.RUNNING,
            attempt=Run.attempt + 1,
            attempts_left=Run.attempts_left - 1,
            worker_id=worker_id,
            lease_until=now() + lease_seconds,
            started_at=func.coalesce(Run.started_at, now()),
            next_key=None,
            computing_key=None,
            progress_text="starting",
        )
        .returning(Run)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(claim).one_or_none()


def renew_lease(session: Session, run_id: int, attempt: int, lease_seconds: float) -> bool | None:
    """Renew the lease of a run. Returns whether it is to be cancelled; None if it is no longer ours."""
    renewed = (
        update(Run)
        .where(*_ours(run_id, attempt))
        .values(lease_until=now() + lease_seconds)
        .returning(Run.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    return session.execute(renewed).scalar_one_or_none()


def is_cancel_asked(session: Session, run_id: int, attempt: int) -> bool | None:
    """Whether a run is to be cancelled; None if it is no longer ours."""
    return session.scalar(select(Run.cancel_requested).where(*_ours(run_id, attempt)))


def is_ours(session: Session, run_id: int, attempt: int) -> bool | None:
    """Lock the run's row for this transaction and return whether it is to be cancelled; None if it is not ours."""
    touched = (
        update(Run)
        .where(*_ours(run_id, attempt))
        .values(attempt=Run.attempt)
        .returning(Run.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    return session.execute(touched).scalar_one_or_none()


def set_progress(
    session: Session, run_id: int, attempt: int, progress: float, text: str, seconds_left: float | None
) -> bool | None:
    """Record a run's progress. Returns whether it is to be cancelled; None if it is no longer ours."""
    told = (
        update(Run)
        .where(*_ours(run_id, attempt))
        .values(progress=progress, progress_text=text[:300], seconds_left=seconds_left)
        .returning(Run.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    return session.execute(told).scalar_one_or_none()


def start_computing(session: Session, run_id: int, attempt: int, key: str) -> bool:
    """Announce the stage that a run computes now; False if another run is already computing it."""
    recorded = select(Artifact.stage_id).join(Stage, Stage.id == Artifact.stage_id).where(Stage.key == key)
    if session.scalar(recorded) is not None:
        stop_computing(session, run_id, attempt)
        return True
    try:
        with session.begin_nested():
            _changed(session, update(Run).where(*_ours(run_id, attempt)).values(computing_key=key))
    except IntegrityError:  # the column is unique: of two runs at the same moment one is refused
        return False
    return True


def stop_computing(session: Session, run_id: int, attempt: int) -> None:
    """The stage is recorded; runs that waited for it may continue."""
    _changed(session, update(Run).where(*_ours(run_id, attempt)).values(computing_key=None))


def give_back(session: Session, run_id: int, attempt: int, seconds: float = 0.0, next_key: str | None = None) -> bool:
    """Return a run to its place in the queue without using up an attempt; to wait for `next_key` if given."""
    values = {
        "status": case((Run.cancel_requested, RunStatus.CANCELLED), else_=RunStatus.QUEUED),
        "ended_at": case((Run.cancel_requested, now()), else_=None),
        "attempts_left": Run.attempts_left + 1,
        "compute_seconds": Run.compute_seconds + seconds,
        "next_key": next_key,
        "progress_text": "waiting for another run's stage" if next_key else "returned to the queue by its worker",
        "seconds_left": None,
        **FREED,
    }
    return _changed(session, update(Run).where(*_ours(run_id, attempt)).values(values))


def finish_run(session: Session, run_id: int, attempt: int, ended: Ended) -> bool:
    """End an attempt; failures not caused by the run itself are queued again while attempts are left."""
    retried = ended.failure in RETRIED
    again = Run.attempts_left > 0 if retried else Run.id < 0
    values = {
        "status": case(
            (Run.cancel_requested & (ended.status != RunStatus.DONE), RunStatus.CANCELLED),
            (again, RunStatus.QUEUED),
            else_=ended.status,
        ),
        "ended_at": case((again & ~Run.cancel_requested, None), else_=now()),
        "failure": ended.failure,
        "failure_message": ended.message,
        "compute_seconds": Run.compute_seconds + ended.seconds,
        "seconds_left": None,
        **FREED,
    }
    if ended.status == RunStatus.DONE:
        values |= {"progress": 1.0, "progress_text": ""}
    return _changed(session, update(Run).where(*_ours(run_id, attempt)).values(values))


def cancel_run(session: Session, run_id: int) -> bool:
    """Cancel a run: immediately while it is queued, else through its worker; False if it had already ended."""
    queued = Run.status == RunStatus.QUEUED
    values = {
        "cancel_requested": True,
        "status": case((queued, RunStatus.CANCELLED), else_=Run.status),
        "ended_at": case((queued, now()), else_=Run.ended_at),
    }
    return _changed(session, update(Run).where(Run.id == run_id, Run.status.not_in(ENDED)).values(values))


def requeue_run(session: Session, run_id: int) -> bool:
    """Queue an ended run again, at the end of the queue, with all its attempts; False if it had not ended.

    Its stages are kept, so it continues where it failed.
    """
    values = {
        "status": RunStatus.QUEUED,
        "cancel_requested": False,
        "attempts_left": MAX_ATTEMPTS,
        "position": now(),
        "failure": None,
        "failure_message": "",
        "progress": 0.0,
        "progress_text": "",
        "started_at": None,
        "ended_at": None,
        "next_key": None,
        "worker_id": None,
        **FREED,
    }
    return _changed(session, update(Run).where(Run.id == run_id, Run.status.in_(ENDED)).values(values))


def return_lost_runs(session: Session) -> Rows:
    """Take runs with expired leases from their workers: (id, status) of each.

    They are queued again, failed as lost if no attempt is left, or cancelled if requested.
    """
    spent = Run.attempts_left <= 0
    returned = (
        update(Run)
        .where(Run.status == RunStatus.RUNNING, Run.lease_until < now())
        .values(
            status=case((Run.cancel_requested, RunStatus.CANCELLED), (spent, RunStatus.FAILED), else_=RunStatus.QUEUED),
            failure=case((spent & ~Run.cancel_requested, FailureClass.LOST), else_=None),
            failure_message=case((spent, "Its workers stopped responding."), else_=""),
            ended_at=case((or_(Run.cancel_requested, spent), now()), else_=None),
            progress_text="lost: its worker stopped responding",
            seconds_left=None,
            **FREED,
        )
        .returning(Run.id, Run.status, Run.attempt)
        .execution_options(synchronize_session=False)
    )
    lost = session.execute(returned).all()
    session.add_all(
        Event(
            run_id=row.id,
            attempt=row.attempt,
            level="warning",
            message="The worker stopped responding; the run was returned to the queue.",
        )
        for row in lost
    )
    session.flush()
    return lost


def has_work(session: Session, device: str) -> bool:
    """Whether any run is queued for a device."""
    query = select(Run.id).where(Run.status == RunStatus.QUEUED, Run.device.in_((device, "any"))).limit(1)
    return session.scalar(query) is not None


def _ours(run_id: int, attempt: int) -> tuple[Any, ...]:
    return Run.id == run_id, Run.attempt == attempt, Run.status == RunStatus.RUNNING


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount == 1
