"""Queries of the Reports page."""

from typing import Any

from app.queries.cache import cached
from core.store import reports
from core.store.engine import read_session

LIVE = 5  # seconds: others write too


@cached(ttl=LIVE)
def load_reports(project_id: int) -> list[dict[str, Any]]:
    """The project's reports without their texts, the most recently changed first."""
    with read_session() as s:
        return [row._asdict() for row in reports.list_reports(s, project_id)]


@cached(ttl=LIVE)
def load_report(project_id: int, report_id: int) -> dict[str, Any] | None:
    """A report of the project with its text and author, or None."""
    with read_session() as s:
        found = reports.read_report(s, project_id, report_id)
    return None if found is None else found._asdict()


def forget_reports() -> None:
    """Clear cached results after the user's own action."""
    for read in (load_reports, load_report):
        read.clear()
