"""What several pages read; what only one reads stands in that page's folder.

Every function is cached for a time that suits it and returns plain data (dicts, lists, data frames), never
rows bound to a session. Filter outside the cache; call `forget_runs` after the user's own action.
"""

from typing import Any

import streamlit as st
from sqlalchemy import func, select, text

from core.complexity import report as complexity
from core.errors import Problem
from core.spec.catalogue import Catalogue, built_in
from core.spec.model import RunSpec
from core.store import (
    champions,
    checks,
    engine,
    estimates,
    listing,
    runs,
    stages,
    techniques,
    users,
    waiting,
    workers,
)
from core.store.engine import read_session
from core.store.models import Artifact, Role, Run, RunStatus, Stage

LIVE = 2  # seconds: what changes while a run executes
SLOW = 30  # seconds: what changes when someone acts or a worker starts
MOST_EXPORTED = 1_000_000  # runs in a file
PART = 5000  # numbers in one query: databases limit them


@st.cache_data(ttl=10, show_spinner=False)
def load_projects(user_id: int) -> tuple[list[tuple[int, str, Role]], bool]:
    """(id, name, the user's role) of each project that the user may see, and whether there are several at all."""
    with read_session() as s:
        mine = [(row.id, row.name, row.role) for row in users.list_projects(s, user_id)]
        return mine, users.count_projects(s) > 1


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_catalogue() -> Catalogue:
    """Techniques, models and tasks: the built-in ones and what workers published."""
    with read_session() as s:
        published = techniques.list_published(s)
        return built_in().merged((kind, name, entry) for kind, name, _, entry in published)


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_survey() -> complexity.Report | None:
    """What architectures cost on this installation; None where nobody measured it. Raises ValueError if unreadable."""
    return complexity.load()


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_spec(run_id: int, project_id: int) -> dict[str, Any] | None:
    """The spec of a run of this project, None where there is no such run."""
    with read_session() as s:
        return s.scalar(select(Run.spec).where(Run.id == run_id, Run.project_id == project_id))


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_run_titles(project_id: int, only_done: bool = False) -> list[tuple[int, str]]:
    """(number, title) of the project's last runs, to choose one from."""
    chosen = listing.RunFilter(project_id, statuses=(RunStatus.DONE,) if only_done else ())
    with read_session() as s:
        found = listing.list_runs(s, chosen, page_size=200)
    return [(row.id, row.name or f"{row.model}: {row.recipe}") for row in found]


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_identical(project_id: int, spec_hash: str) -> list[tuple[int, str, float]]:
    """(number, status, created_at) of the project's runs that ask for exactly the same, the newest first."""
    with read_session() as s:
        return [(row.id, row.status.value, row.created_at) for row in runs.find_identical(s, project_id, spec_hash)]


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_estimate(spec: dict[str, Any], spec_hash: str) -> float | None:
    """Seconds that a run may take by earlier ones, None where they tell nothing."""
    parsed = RunSpec.parse(spec)
    with read_session() as s:
        whole = runs.typical_seconds(s, spec_hash, parsed.model.source, parsed.task.source, runs.recipe_text(parsed))
        if whole is not None:
            return whole
        steps = [(step.technique, step.settings) for step in parsed.recipe]
        seconds = estimates.step_seconds(s, parsed.model.source, parsed.task.source, steps)
    return sum(filter(None, seconds)) if seconds and None not in seconds else None


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_answer(spec_hash: str) -> list[Problem] | None:
    """What a worker found wrong with a spec; empty where it fits, None where none has answered yet."""
    with read_session() as s:
        return checks.find_answer(s, spec_hash)


@st.cache_data(ttl=10, show_spinner=False)
def load_offers() -> dict[str, dict[str, list[str]]]:
    """Which living workers offer what: "technique:rtn" -> schema hash -> names of the workers."""
    with read_session() as s:
        return techniques.list_offers(s)


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_workers() -> list[dict[str, Any]]:
    """Workers that live or did lately, with what they run, `age` in seconds since seen, and whether `lost`."""
    with read_session() as s:
        return [dict(row._mapping) for row in workers.list_workers(s)]


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_waiting() -> dict[int, str]:
    """Queued runs that no living worker can take, and what each waits for."""
    with read_session() as s:
        queued = s.scalars(select(Run.id).where(Run.status == RunStatus.QUEUED).order_by(Run.id).limit(200)).all()
        return waiting.waiting_for(s, queued, seen_within=60.0)


@st.cache_data(ttl=10, show_spinner=False)
def load_store_state() -> dict[str, Any]:
    """Address without password, dialect, schema revision (found, expected), bytes, and how much is in it."""
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


@st.cache_data(ttl=10, show_spinner=False)
def load_members(project_id: int) -> list[tuple[int, str, Role | None]]:
    """(id, name, role in the project or None) of every user."""
    with read_session() as s:
        return [(row.id, row.name, row.role) for row in users.list_members(s, project_id)]


@st.cache_data(ttl=LIVE / 2, show_spinner=False)
def load_queue(project_id: int) -> list[dict[str, Any]]:
    """Running runs, then queued ones in the order in which they will be taken, with `now` by the store's clock."""
    with read_session() as s:
        return [dict(row._mapping) for row in listing.list_queue(s, project_id)]


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_runs(chosen: listing.RunFilter, order: listing.Order, page: int, page_size: int) -> list[dict[str, Any]]:
    """One page of runs, each with `last`: its last stage beside its reference, or None."""
    with read_session() as s:
        found = [row._asdict() for row in listing.list_runs(s, chosen, order, page, page_size)]
        last = {row.run_id: row._asdict() for row in listing.list_last_stages(s, [run["id"] for run in found])}
    return [{**run, "last": last.get(run["id"])} for run in found]


def read_all_runs(chosen: listing.RunFilter, order: listing.Order) -> list[dict[str, Any]]:
    """Every run that a filter leaves, as `load_runs` returns them; read anew, outside of any page."""
    with read_session() as s:
        found = [row._asdict() for row in listing.list_runs(s, chosen, order, page_size=MOST_EXPORTED)]
        parts = [[run["id"] for run in found[at : at + PART]] for at in range(0, len(found), PART)]
        last = {row.run_id: row._asdict() for part in parts for row in listing.list_last_stages(s, part)}
    return [{**run, "last": last.get(run["id"])} for run in found]


@st.cache_data(ttl=LIVE, show_spinner=False)
def count_runs(chosen: listing.RunFilter) -> int:
    """How many runs a filter leaves."""
    with read_session() as s:
        return listing.count_runs(s, chosen)


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_choices(project_id: int) -> dict[str, list[str]]:
    """What runs can be filtered by: models, tasks, techniques, owners and tags."""
    with read_session() as s:
        return listing.list_choices(s, project_id)


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_champions(project_id: int, task_hash: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The champions of a task's devices, and every entry of their history, the newest first."""
    with read_session() as s:
        return champions.list_champions(s, project_id, task_hash), champions.list_history(s, project_id, task_hash)


@st.cache_data(ttl=LIVE, show_spinner=False)
def load_titles(run_id: int) -> list[dict[str, Any]]:
    """The titles that stages of a run hold now."""
    with read_session() as s:
        return champions.list_titles(s, run_id)


@st.cache_data(ttl=SLOW, show_spinner=False)
def load_keys(stage_ids: tuple[int, ...]) -> dict[int, str]:
    """Keys of stages by their ids."""
    with read_session() as s:
        return stages.list_keys(s, stage_ids)


def forget_runs() -> None:
    """Read anew what the user's own action has changed."""
    for read in (load_run_titles, load_identical, load_estimate, load_runs, count_runs, load_choices, load_queue):
        read.clear()


def forget_champions() -> None:
    """Read anew what the user's own action has changed."""
    load_champions.clear()
    load_titles.clear()


def forget_system() -> None:
    """Read the system's state anew."""
    for read in (load_workers, load_waiting, load_store_state, load_offers, load_members):
        read.clear()
