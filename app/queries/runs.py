"""Queries of lists of runs: the Runs page, the queue, and earlier runs for Submit."""

from typing import Any

from sqlalchemy import select

from app.queries.cache import LIVE, SLOW, cached
from core.errors import Problem
from core.spec.model import RunSpec
from core.store import checks, estimates, listing, runs, waiting
from core.store.engine import read_session
from core.store.models import Run, RunStatus

MOST_EXPORTED = 1_000_000  # runs in a file
PART = 5000  # numbers in one query: databases limit them


@cached(ttl=SLOW)
def load_spec(run_id: int, project_id: int) -> dict[str, Any] | None:
    """The spec of a run of this project, or None."""
    with read_session() as s:
        return s.scalar(select(Run.spec).where(Run.id == run_id, Run.project_id == project_id))


@cached(ttl=SLOW)
def load_run_titles(project_id: int, only_done: bool = False) -> list[tuple[int, str]]:
    """(number, title) of the project's latest runs, to choose from."""
    chosen = listing.RunFilter(project_id, statuses=(RunStatus.DONE,) if only_done else ())
    with read_session() as s:
        found = listing.list_runs(s, chosen, page_size=200)
    return [(row.id, row.name or f"{row.model}: {row.recipe}") for row in found]


@cached(ttl=LIVE)
def load_identical(project_id: int, spec_hash: str) -> list[tuple[int, str, float]]:
    """(number, status, created_at) of the project's runs with an identical spec, newest first."""
    with read_session() as s:
        return [(row.id, row.status.value, row.created_at) for row in runs.find_identical(s, project_id, spec_hash)]


@cached(ttl=SLOW)
def load_estimate(spec: dict[str, Any], spec_hash: str) -> float | None:
    """Estimated seconds of a run from earlier ones, or None."""
    parsed = RunSpec.parse(spec)
    with read_session() as s:
        whole = runs.estimate_seconds(
            s, spec_hash, parsed.model.source, parsed.task.source, runs.describe_recipe(parsed)
        )
        if whole is not None:
            return whole
        steps = [(step.technique, step.settings) for step in parsed.recipe]
        seconds = estimates.step_seconds(s, parsed.model.source, parsed.task.source, steps)
    return sum(filter(None, seconds)) if seconds and None not in seconds else None


@cached(ttl=LIVE)
def load_answer(spec_hash: str) -> list[Problem] | None:
    """A worker's validation errors of a spec; empty if it is compatible, None if no worker has answered yet."""
    with read_session() as s:
        return checks.find_answer(s, spec_hash)


@cached(ttl=LIVE)
def load_waiting() -> dict[int, str]:
    """Queued runs that no active worker can take, and what each is waiting for."""
    with read_session() as s:
        queued = s.scalars(select(Run.id).where(Run.status == RunStatus.QUEUED).order_by(Run.id).limit(200)).all()
        return waiting.find_waiting(s, queued, seen_within=60.0)


@cached(ttl=LIVE / 2)
def load_queue(project_id: int) -> list[dict[str, Any]]:
    """Running runs, then queued ones in queue order, with `now` from the store's clock."""
    with read_session() as s:
        return [dict(row._mapping) for row in listing.list_queue(s, project_id)]


@cached(ttl=LIVE)
def load_runs(chosen: listing.RunFilter, order: listing.Order, page: int, page_size: int) -> list[dict[str, Any]]:
    """One page of runs, each with `last`: its last stage and its reference, or None."""
    with read_session() as s:
        found = [row._asdict() for row in listing.list_runs(s, chosen, order, page, page_size)]
        last = {row.run_id: row._asdict() for row in listing.list_last_stages(s, [run["id"] for run in found])}
    return [{**run, "last": last.get(run["id"])} for run in found]


def read_all_runs(chosen: listing.RunFilter, order: listing.Order) -> list[dict[str, Any]]:
    """All runs that match a filter, as `load_runs` returns them; not cached."""
    with read_session() as s:
        found = [row._asdict() for row in listing.list_runs(s, chosen, order, page_size=MOST_EXPORTED)]
        parts = [[run["id"] for run in found[at : at + PART]] for at in range(0, len(found), PART)]
        last = {row.run_id: row._asdict() for part in parts for row in listing.list_last_stages(s, part)}
    return [{**run, "last": last.get(run["id"])} for run in found]


@cached(ttl=LIVE)
def count_runs(chosen: listing.RunFilter) -> int:
    """The number of runs that match a filter."""
    with read_session() as s:
        return listing.count_runs(s, chosen)


@cached(ttl=SLOW)
def load_choices(project_id: int) -> dict[str, list[str]]:
    """Values to filter runs by: models, tasks, techniques, owners and tags."""
    with read_session() as s:
        return listing.list_choices(s, project_id)


def forget_runs() -> None:
    """Clear cached results after the user's own action."""
    for read in (load_run_titles, load_identical, load_estimate, load_runs, count_runs, load_choices, load_queue):
        read.clear()
