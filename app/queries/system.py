"""Queries of the System page: workers and the store."""

from typing import Any

from sqlalchemy import func, select, text

from app.queries.cache import LIVE, cached
from app.queries.catalogue import load_offers
from app.queries.projects import load_members
from app.queries.runs import load_waiting
from core.store import engine, workers
from core.store.engine import read_session
from core.store.models import Artifact, Run, RunStatus, Stage


@cached(ttl=LIVE)
def load_workers() -> list[dict[str, Any]]:
    """Active and recently active workers, with what they run, seconds since seen (`age`), and whether `lost`."""
    with read_session() as s:
        return [dict(row._mapping) for row in workers.list_workers(s)]


@cached(ttl=10)
def load_store_state() -> dict[str, Any]:
    """Address without password, dialect, schema revision (found, expected), size in bytes and numbers of rows."""
    url = engine.engine().url
    with read_session() as s:
        found = {
            "bytes": s.scalar(text(_SIZE[url.get_backend_name()])),
            "runs": s.scalar(select(func.count()).select_from(Run)),
            "queued": s.scalar(select(func.count()).where(Run.status == RunStatus.QUEUED)),
            "stages": s.scalar(select(func.count()).select_from(Stage)),
            "artifact_bytes": s.scalar(select(func.coalesce(func.sum(Artifact.bytes), 0))),
        }
    address = url.render_as_string(hide_password=True)
    return {**found, "address": address, "dialect": url.get_backend_name(), "revision": engine.revision()}


_SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}


def forget_system() -> None:
    """Clear cached results, so that the state is read again."""
    for read in (load_workers, load_waiting, load_store_state, load_offers, load_members):
        read.clear()
