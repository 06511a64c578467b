"""Reads and writes of single runs. The caller owns the session and its commit."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.spec.model import RunSpec, StepSpec
from core.store import provenance
from core.store.clock import now
from core.store.models import (
    Note,
    Project,
    Run,
    RunNeed,
    RunStatus,
    RunTechnique,
    Tag,
    User,
    Worker,
)
from core.store.rows import Columns, Rows

MAX_ATTEMPTS = 3
ENDED = (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)


def submit_run(
    session: Session,
    spec: RunSpec,
    *,
    project_id: int,
    owner_id: int,
    needs: Iterable[str] | None = None,
    cloned_from_id: int | None = None,
    from_elsewhere: bool = False,
) -> Run:
    """Queue a run. `needs` is what a worker must provide; by default the spec's techniques.

    A need is a worker's property ("cuda"), an offer ("technique:rtn") or an offer with its schema's hash
    ("technique:rtn#<hash>"). Run numbers in a spec `from_elsewhere` belong to another store.
    """
    techniques = spec.techniques()
    run = Run(
        project_id=project_id,
        owner_id=owner_id,
        name=spec.name,
        spec=spec.to_dict(),
        spec_hash=spec.hash,
        model=spec.model.source,
        task=spec.task.source,
        recipe=describe_recipe(spec),
        device=spec.device,
        cloned_from_id=cloned_from_id,
        attempts_left=MAX_ATTEMPTS,
        environment={},
    )
    run.search = _search_text(run, ())
    session.add(run)
    session.flush()
    run.position = now() + (run.id % 1000) * 1e-6  # runs submitted in the same instant keep an order
    session.add_all(RunTechnique(run_id=run.id, technique=name) for name in techniques)
    if not from_elsewhere:
        provenance.record_sources(session, run.id, run.spec)
    wanted = [f"technique:{name}" for name in techniques] if needs is None else needs
    session.add_all(RunNeed(run_id=run.id, need=need) for need in dict.fromkeys(wanted))
    session.flush()
    return run


def describe_recipe(spec: RunSpec) -> str:
    """The recipe in a line, the methods of a training in brackets: "train → train (sr_ste) → rtn"."""
    return " → ".join(map(_step_text, spec.recipe)) or "no steps"


def get_run(session: Session, run_id: int) -> Run:
    """The run; raises NoResultFound."""
    return session.get_one(Run, run_id, populate_existing=True)


def find_run(session: Session, run_id: int) -> Run | None:
    """The run, None if there is none."""
    return session.get(Run, run_id, populate_existing=True)


def run_details(session: Session, run_id: int) -> Columns | None:
    """A run's row with the names of its owner, project and worker; None if there is none."""
    query = (
        select(
            Run,
            User.name.label("owner"),
            Project.name.label("project"),
            Worker.name.label("worker"),
            Worker.hardware,
            now().label("now"),
        )
        .join(User, User.id == Run.owner_id)
        .join(Project, Project.id == Run.project_id)
        .outerjoin(Worker, Worker.id == Run.worker_id)
        .where(Run.id == run_id)
    )
    return session.execute(query).one_or_none()


def find_identical(session: Session, project_id: int, spec_hash: str) -> Rows:
    """Runs of the project with an identical spec, newest first: id, status, created_at."""
    query = (
        select(Run.id, Run.status, Run.created_at)
        .where(Run.spec_hash == spec_hash, Run.project_id == project_id)
        .order_by(Run.id.desc())
        .limit(20)
    )
    return session.execute(query).all()


def estimate_seconds(session: Session, spec_hash: str, model: str, task: str, recipe: str) -> float | None:
    """Mean compute seconds of the last finished runs with the same spec, else the same model, task and recipe."""
    for same in (Run.spec_hash == spec_hash, (Run.model == model) & (Run.task == task) & (Run.recipe == recipe)):
        recent = (
            select(Run.compute_seconds)
            .where(same, Run.status == RunStatus.DONE, Run.compute_seconds > 0)
            .order_by(Run.id.desc())
            .limit(10)
            .subquery()
        )
        seconds = session.scalar(select(func.avg(recent.c.compute_seconds)))
        if seconds is not None:
            return float(seconds)
    return None


def note_environment(session: Session, run_id: int, environment: Mapping[str, Any]) -> None:
    """Record the versions and the hardware of a run."""
    session.execute(update(Run).where(Run.id == run_id).values(environment=dict(environment)))


def rename_run(session: Session, run_id: int, name: str) -> None:
    """Rename a run."""
    run = get_run(session, run_id)
    run.name = name
    run.search = _search_text(run, list_tags(session, run_id))
    session.flush()


def add_tag(session: Session, run_id: int, name: str) -> None:
    """Tag a run; idempotent."""
    session.merge(Tag(run_id=run_id, name=name))
    _refresh_search(session, run_id)


def remove_tag(session: Session, run_id: int, name: str) -> None:
    """Remove a tag from a run."""
    tag = session.get(Tag, (run_id, name))
    if tag is not None:
        session.delete(tag)
    _refresh_search(session, run_id)


def list_tags(session: Session, run_id: int) -> list[str]:
    """A run's tags in alphabetical order."""
    return list(session.scalars(select(Tag.name).where(Tag.run_id == run_id).order_by(Tag.name)))


def add_note(session: Session, run_id: int, user_id: int, text: str) -> Note:
    """Add a user's note to a run."""
    note = Note(run_id=run_id, user_id=user_id, text=text)
    session.add(note)
    session.flush()
    return note


def list_notes(session: Session, run_id: int) -> Rows:
    """A run's notes, oldest first: id, text, author, created_at."""
    query = (
        select(Note.id, Note.text, User.name.label("author"), Note.created_at)
        .join(User, User.id == Note.user_id)
        .where(Note.run_id == run_id)
        .order_by(Note.id)
    )
    return session.execute(query).all()


def _step_text(step: StepSpec) -> str:
    methods = [StepSpec.model_validate(method).technique for method in step.settings.get("methods") or []]
    return f"{step.technique} ({', '.join(methods)})" if methods else step.technique


def _refresh_search(session: Session, run_id: int) -> None:
    session.flush()
    run = get_run(session, run_id)
    run.search = _search_text(run, list_tags(session, run_id))
    session.flush()


def _search_text(run: Run, tags: Iterable[str]) -> str:
    return " ".join([run.name, run.model, run.task, *tags, run.recipe]).lower()[:1000]
