"""The table of runs: filtered, sorted and paged in SQL. The caller owns the session."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, aliased

from core.store.clock import now
from core.store.models import UNFINISHED, Favourite, Run, RunStage, RunStatus, RunTechnique, Stage, Tag, User, Worker
from core.store.rows import Rows
from core.store.stages import reference_size

Order = Literal["newest", "oldest", "name", "model", "task", "owner", "status", "longest", "shortest"]
ORDERS: dict[Order, tuple[ColumnElement[Any], ...]] = {
    "newest": (Run.id.desc(),),
    "oldest": (Run.id.asc(),),
    "name": (Run.name.asc(), Run.id.desc()),
    "model": (Run.model.asc(), Run.id.desc()),
    "task": (Run.task.asc(), Run.id.desc()),
    "owner": (Run.owner_id.asc(), Run.id.desc()),
    "status": (Run.status.asc(), Run.id.desc()),
    "longest": (Run.compute_seconds.desc(), Run.id.desc()),
    "shortest": (Run.compute_seconds.asc(), Run.id.desc()),
}
COLUMNS = (
    Run.id,
    Run.name,
    Run.model,
    Run.task,
    Run.recipe,
    Run.device,
    Run.status,
    Run.cancel_requested,
    Run.progress,
    Run.progress_text,
    Run.seconds_left,
    Run.compute_seconds,
    Run.failure,
    Run.failure_message,
    Run.worker_id,
    Run.owner_id,
    Run.created_at,
    Run.started_at,
    Run.ended_at,
)


@dataclass(frozen=True)
class RunFilter:
    """A filter of a project's runs; empty fields do not filter."""

    project_id: int
    statuses: tuple[RunStatus, ...] = ()
    owner_id: int | None = None
    owner: str = ""
    model: str = ""
    task: str = ""
    technique: str = ""
    tag: str = ""
    starred_by: int | None = None  # a user's id
    text: str = ""  # anywhere in name, model, task, tags or recipe


def list_runs(session: Session, chosen: RunFilter, order: Order = "newest", page: int = 1, page_size: int = 50) -> Rows:
    """One page (from 1) of runs: `COLUMNS` and the owner's name as `owner`."""
    ids = (
        select(Run.id)
        .where(*_conditions(chosen))
        .order_by(*ORDERS[order])
        .limit(page_size)
        .offset((page - 1) * page_size)
    )
    query = select(*COLUMNS, User.name.label("owner")).join(User, User.id == Run.owner_id)
    return session.execute(query.where(Run.id.in_(ids)).order_by(*ORDERS[order])).all()


def count_runs(session: Session, chosen: RunFilter) -> int:
    """The number of runs that match the filter."""
    return session.scalar(select(func.count()).select_from(Run).where(*_conditions(chosen))) or 0


def list_run_ids(session: Session, chosen: RunFilter, limit: int = 10_000) -> list[int]:
    """Ids of all runs that match the filter, for bulk actions."""
    return list(session.scalars(select(Run.id).where(*_conditions(chosen)).order_by(Run.id.desc()).limit(limit)))


def list_choices(session: Session, project_id: int) -> dict[str, list[str]]:
    """The choices of filters of a project's runs: models, tasks, techniques, owners and tags, by name."""
    mine = Run.project_id == project_id
    queries = {
        "models": select(Run.model).where(mine).distinct(),
        "tasks": select(Run.task).where(mine).distinct(),
        "owners": select(User.name).where(User.id.in_(select(Run.owner_id).where(mine).distinct())),
        "techniques": select(RunTechnique.technique).distinct(),
        "tags": select(Tag.name).distinct(),
    }
    return {name: sorted(session.scalars(query)) for name, query in queries.items()}


def list_last_stages(session: Session, run_ids: Iterable[int]) -> Rows:
    """The last stage of each run with its reference: run_id, size, score and the values that they are compared with."""
    last = (
        select(RunStage.run_id, func.max(RunStage.position).label("position"))
        .where(RunStage.run_id.in_(list(run_ids)))
        .group_by(RunStage.run_id)
        .subquery()
    )
    reference = aliased(Stage)
    query = (
        select(
            RunStage.run_id,
            RunStage.position,
            Stage.id.label("stage_id"),
            Stage.label,
            Stage.family,
            Stage.trained,
            Stage.size_bytes,
            Stage.score,
            Stage.score_low,
            Stage.score_high,
            Stage.score_name,
            Stage.score_unit,
            Stage.higher_is_better,
            RunStage.score_delta,
            reference_size(reference).label("reference_size_bytes"),
            reference.score.label("reference_score"),
        )
        .join(last, (last.c.run_id == RunStage.run_id) & (last.c.position == RunStage.position))
        .join(Stage, Stage.id == RunStage.stage_id)
        .outerjoin(reference, reference.id == RunStage.reference_stage_id)
    )
    return session.execute(query).all()


def list_queue(session: Session, project_id: int | None = None, limit: int = 200) -> Rows:
    """Running runs, then queued ones in the order of the queue, with owner and worker."""
    rank = (Run.status == RunStatus.QUEUED).label("waits")
    query: Select[*tuple[Any, ...]] = (
        select(*COLUMNS, User.name.label("owner"), Worker.name.label("worker"), now().label("now"))
        .join(User, User.id == Run.owner_id)
        .outerjoin(Worker, Worker.id == Run.worker_id)
        .where(Run.status.in_(UNFINISHED))
        .order_by(rank, Run.position, Run.id)
        .limit(limit)
    )
    if project_id is not None:
        query = query.where(Run.project_id == project_id)
    return session.execute(query).all()


def _conditions(chosen: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Run.project_id == chosen.project_id]
    if chosen.statuses:
        conditions.append(Run.status.in_(chosen.statuses))
    if chosen.owner_id is not None:
        conditions.append(Run.owner_id == chosen.owner_id)
    if chosen.owner:
        conditions.append(Run.owner_id == select(User.id).where(User.name == chosen.owner).scalar_subquery())
    if chosen.model:
        conditions.append(Run.model == chosen.model)
    if chosen.task:
        conditions.append(Run.task == chosen.task)
    if chosen.technique:
        conditions.append(Run.id.in_(select(RunTechnique.run_id).where(RunTechnique.technique == chosen.technique)))
    if chosen.tag:
        conditions.append(Run.id.in_(select(Tag.run_id).where(Tag.name == chosen.tag)))
    if chosen.starred_by is not None:
        conditions.append(Run.id.in_(select(Favourite.run_id).where(Favourite.user_id == chosen.starred_by)))
    conditions += [Run.search.contains(word, autoescape=True) for word in chosen.text.lower().split()]
    return conditions
