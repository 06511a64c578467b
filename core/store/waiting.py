"""The needs of queued runs, and why no worker takes them. The caller owns the session."""

from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.store.clock import now
from core.store.models import Run, RunNeed, Worker


def provided(provides: Iterable[str], offers: Mapping[str, str]) -> set[str]:
    """All needs that a worker meets: its properties, and its offers with and without the schema's hash."""
    return {*provides, *offers, *(f"{name}#{digest}" for name, digest in offers.items())}


def find_waiting(session: Session, run_ids: Iterable[int], seen_within: float) -> dict[int, str]:
    """What queued runs wait for, for those that no live worker can take."""
    workers = session.execute(
        select(Worker.device, Worker.provides, Worker.offers).where(
            Worker.stopped_at.is_(None), Worker.last_seen_at > now() - seen_within
        )
    ).all()
    needs: dict[int, list[str]] = {}
    for run_id, need in session.execute(select(RunNeed.run_id, RunNeed.need).where(RunNeed.run_id.in_(list(run_ids)))):
        needs.setdefault(run_id, []).append(need)
    devices = session.execute(select(Run.id, Run.device).where(Run.id.in_(list(run_ids)))).all()
    sets = [(worker.device, provided(worker.provides, worker.offers)) for worker in workers]
    words = {row.id: _missing(row.device, needs.get(row.id, []), sets) for row in devices}
    return {run_id: text for run_id, text in words.items() if text}


def _missing(device: str, needs: list[str], workers: list[tuple[str, set[str]]]) -> str:
    fitting = [have for kind, have in workers if device in ("any", kind)]
    if not fitting:
        return "a worker" if device == "any" else f"a worker with a {device.upper()}"
    unmet = min(([need for need in needs if need not in have] for have in fitting), key=len)
    return f"a worker that provides {', '.join(need.partition('#')[0] for need in unmet)}" if unmet else ""
