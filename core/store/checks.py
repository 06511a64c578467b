"""Preflight checks by workers: specs to check, and the answers. The caller commits."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.errors import Problem
from core.spec.model import RunSpec
from core.store.clock import now
from core.store.models import SpecCheck
from core.store.upsert import upsert

KEPT_SECONDS = 3600.0  # an answer holds for the software that gave it; older ones are asked for again


def ask(session: Session, spec: RunSpec) -> list[Problem] | None:
    """The known answer for a spec (no problems: valid); else None, and the spec is queued for a worker.

    Send the worker a message afterwards: `worker.celery_app.enqueue_check`.
    """
    old = SpecCheck.asked_at < now() - KEPT_SECONDS
    session.execute(delete(SpecCheck).where(SpecCheck.spec_hash == spec.hash, old))
    upsert(session, SpecCheck, [{"spec_hash": spec.hash, "spec": spec.to_dict()}], ["spec_hash"])
    return find_answer(session, spec.hash)


def find_answer(session: Session, spec_hash: str) -> list[Problem] | None:
    """Problems of a spec found by a worker; empty: valid; None: no answer yet."""
    row = session.execute(
        select(SpecCheck.problems, SpecCheck.answered_at).where(SpecCheck.spec_hash == spec_hash)
    ).one_or_none()
    if row is None or row.answered_at is None:
        return None
    return [Problem(**problem) for problem in row.problems]


def find_question(session: Session, spec_hash: str) -> dict[str, Any] | None:
    """The spec of a check without an answer."""
    query = select(SpecCheck.spec).where(SpecCheck.spec_hash == spec_hash, SpecCheck.answered_at.is_(None))
    return session.scalar(query)


def answer(session: Session, spec_hash: str, problems: Sequence[Problem]) -> None:
    """Write a worker's answer."""
    rows: list[Mapping[str, Any]] = [
        {"field": p.field, "value": _plain(p.value), "message": p.message, "remedy": p.remedy} for p in problems
    ]
    session.execute(update(SpecCheck).where(SpecCheck.spec_hash == spec_hash).values(problems=rows, answered_at=now()))


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
