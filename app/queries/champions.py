"""Queries of champions."""

from typing import Any

from app.queries.cache import LIVE, cached
from core.store import champions
from core.store.engine import read_session


@cached(ttl=LIVE)
def load_champions(project_id: int, task_hash: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The champions of a task by device, and their history, newest first."""
    with read_session() as s:
        return champions.list_champions(s, project_id, task_hash), champions.list_history(s, project_id, task_hash)


@cached(ttl=LIVE)
def load_titles(run_id: int) -> list[dict[str, Any]]:
    """The devices whose champion is a stage of the run."""
    with read_session() as s:
        return champions.list_titles(s, run_id)


def forget_champions() -> None:
    """Clear cached results after the user's own action."""
    load_champions.clear()
    load_titles.clear()
