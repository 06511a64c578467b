"""Insert rows that may already exist: the same statement in SQLite and Postgres."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from core.store.models import Base


def upsert(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    key: Iterable[str],
    changed: Iterable[str] = (),
) -> None:
    """Insert rows; if one with the same `key` columns exists, set its `changed` columns (none: keep it)."""
    if not rows:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(table.__table__)  # type: ignore[arg-type]
    updates = {name: statement.excluded[name] for name in changed}
    if updates:
        statement = statement.on_conflict_do_update(index_elements=list(key), set_=updates)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(key))
    session.execute(statement, [dict(row) for row in rows])  # one compiled statement for all rows
