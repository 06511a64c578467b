"""The runs' logs. The caller commits."""

from collections.abc import Iterable

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.store.models import Event
from core.store.rows import Rows

MAX_MESSAGE = 20_000  # characters; a longer line is cut


def add_events(session: Session, run_id: int, attempt: int, lines: Iterable[tuple[float, str, str]]) -> None:
    """Add (time, level, message) lines to a run's log; level is info, warning, error or output."""
    rows = [
        {
            "run_id": run_id,
            "attempt": attempt,
            "at": at,
            "level": level,
            "message": message[:MAX_MESSAGE].replace("\0", ""),
        }
        for at, level, message in lines
    ]
    if rows:
        session.execute(insert(Event), rows)


def list_events(
    session: Session, run_id: int, after_id: int = 0, levels: tuple[str, ...] = (), limit: int = 1000
) -> Rows:
    """(id, attempt, at, level, message) of the lines after `after_id`, the oldest first."""
    query = select(Event.id, Event.attempt, Event.at, Event.level, Event.message).where(
        Event.run_id == run_id, Event.id > after_id
    )
    if levels:
        query = query.where(Event.level.in_(levels))
    return session.execute(query.order_by(Event.id).limit(limit)).all()


def load_last_events(session: Session, run_id: int, limit: int = 200, levels: tuple[str, ...] = ()) -> Rows:
    """(id, attempt, at, level, message) of the log's last lines, the oldest first."""
    query = select(Event.id, Event.attempt, Event.at, Event.level, Event.message).where(Event.run_id == run_id)
    if levels:
        query = query.where(Event.level.in_(levels))
    return session.execute(query.order_by(Event.id.desc()).limit(limit)).all()[::-1]
