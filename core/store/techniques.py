"""The published catalogue of workers, with entries by kind, name and schema hash. The caller commits."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.store.clock import now
from core.store.models import PublishedTechnique, Worker
from core.store.rows import Rows
from core.store.upsert import upsert


def publish(session: Session, entries: Iterable[tuple[str, str, str, Mapping[str, Any]]]) -> None:
    """Publish (kind, name, hash, entry) of techniques, models, tasks and runtimes; existing entries are kept."""
    rows = [{"kind": kind, "name": name, "hash": digest, "entry": dict(entry)} for kind, name, digest, entry in entries]
    upsert(session, PublishedTechnique, rows, ["kind", "name", "hash"])


def list_published(session: Session) -> Rows:
    """(kind, name, hash, entry) of everything ever published, latest last."""
    query = select(
        PublishedTechnique.kind, PublishedTechnique.name, PublishedTechnique.hash, PublishedTechnique.entry
    ).order_by(PublishedTechnique.published_at)
    return session.execute(query).all()


def list_offers(session: Session, seen_within: float = 60.0) -> dict[str, dict[str, list[str]]]:
    """Offers of live workers: "technique:rtn" -> schema hash -> names of the workers."""
    query = select(Worker.name, Worker.offers).where(
        Worker.stopped_at.is_(None), Worker.last_seen_at > now() - seen_within
    )
    offers: dict[str, dict[str, list[str]]] = {}
    for worker, offered in session.execute(query):
        for name, digest in offered.items():
            offers.setdefault(name, {}).setdefault(digest, []).append(worker)
    return offers
