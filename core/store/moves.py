"""The order of the queue, as users change it. The caller commits."""

from typing import Any, cast

from sqlalchemy import CursorResult, Update, or_, select, update
from sqlalchemy.orm import Session

from core.store.models import Run, RunStatus


def move_run(session: Session, run_id: int, where: str) -> bool:
    """Move a queued run to the "top", one "up" or one "down"; False when it is not queued or already there."""
    run = session.get(Run, run_id, populate_existing=True)
    if run is None or run.status != RunStatus.QUEUED:
        return False
    neighbour = _neighbour(session, run, where)
    if neighbour is None:
        return False
    if where == "top":
        place = {"priority": neighbour.priority, "position": neighbour.position - 1.0}
        return _moved(session, _queued(run.id).values(place))
    mine = {"priority": run.priority, "position": run.position}
    theirs = {"priority": neighbour.priority, "position": neighbour.position}
    return _moved(session, _queued(run.id).values(theirs)) and _moved(session, _queued(neighbour.id).values(mine))


def _neighbour(session: Session, run: Run, where: str) -> Run | None:
    before = or_(Run.priority > run.priority, (Run.priority == run.priority) & (Run.position < run.position))
    after = or_(Run.priority < run.priority, (Run.priority == run.priority) & (Run.position > run.position))
    query = select(Run).where(Run.status == RunStatus.QUEUED, Run.id != run.id).limit(1)
    first_first = (Run.priority.desc(), Run.position)
    last_first = (Run.priority, Run.position.desc())
    orders = {
        "top": query.where(before).order_by(*first_first),
        "up": query.where(before).order_by(*last_first),
        "down": query.where(after).order_by(*first_first),
    }
    return session.scalars(orders[where]).one_or_none()


def _queued(run_id: int) -> Update:
    return update(Run).where(Run.id == run_id, Run.status == RunStatus.QUEUED)


def _moved(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount == 1
