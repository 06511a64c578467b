"""The order of the queue, as users change it. The caller commits."""

from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from core.store.models import Run, RunStatus


def move_run(session: Session, run_id: int, where: str) -> bool:
    """Move a queued run to the "top", one "up" or one "down"; False if it is not queued or already there."""
    run = session.get(Run, run_id, populate_existing=True)
    if run is None or run.status != RunStatus.QUEUED:
        return False
    neighbour = _neighbour(session, run, where)
    if neighbour is None:
        return False
    if where == "top":
        return _place(session, run.id, neighbour.position - 1.0)
    mine, theirs = run.position, neighbour.position
    return _place(session, run.id, theirs) and _place(session, neighbour.id, mine)


def _neighbour(session: Session, run: Run, where: str) -> Run | None:
    query = select(Run).where(Run.status == RunStatus.QUEUED).limit(1)
    before, after = Run.position < run.position, Run.position > run.position
    orders = {
        "top": query.where(before).order_by(Run.position),
        "up": query.where(before).order_by(Run.position.desc()),
        "down": query.where(after).order_by(Run.position),
    }
    return session.scalars(orders[where]).one_or_none()


def _place(session: Session, run_id: int, position: float) -> bool:
    statement = update(Run).where(Run.id == run_id, Run.status == RunStatus.QUEUED).values(position=position)
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount == 1
