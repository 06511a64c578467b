"""Provenance: runs with their stages, and the runs that they started from. The caller owns the session."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from core.spec.run_references import list_named_runs
from core.store.models import Run, RunSource, RunStage, Stage, User
from core.store.rows import Rows
from core.store.upsert import upsert

LONGEST_ROLE = 60
_STAGE = (
    "technique",
    "family",
    "label",
    "model",
    "task",
    "trained",
    "size_bytes",
    "score_name",
    "score_unit",
    "score",
    "score_low",
    "score_high",
    "seconds",
)


def record_sources(session: Session, run_id: int, spec: Mapping[str, Any]) -> None:
    """Record the earlier runs in a run's spec; unknown numbers are left out."""
    named = list_named_runs(spec)
    if not named:
        return
    known = set(session.scalars(select(Run.id).where(Run.id.in_({n.number for n in named}))))
    rows = [
        {"run_id": run_id, "source_id": n.number, "role": n.role[:LONGEST_ROLE], "position": n.position}
        for n in named
        if n.number in known
    ]
    upsert(session, RunSource, rows, ("run_id", "source_id", "role", "position"))


def find_family(
    session: Session, project_id: int, run_ids: Sequence[int], limit: int, *, relatives: bool = True
) -> tuple[list[int], int]:
    """At most `limit` runs of the project to draw together, and their total number.

    The runs and all their ancestors; with `relatives` also their descendants, and the runs that share
    a stage after the source with one of them. The given runs come first, then their ancestors, then the
    newest.
    """
    asked = select(Run.id).where(Run.id.in_(list(run_ids)))
    before = _closure(asked, RunSource.run_id, RunSource.source_id, "before")
    kin = [Run.id.in_(select(before.c.id))]
    if relatives:
        after = _closure(asked, RunSource.source_id, RunSource.run_id, "after")
        theirs = select(RunStage.stage_id).where(RunStage.run_id.in_(list(run_ids)), RunStage.position > 0)
        sharing = select(RunStage.run_id).where(RunStage.stage_id.in_(theirs))
        kin += [Run.id.in_(select(after.c.id)), Run.id.in_(sharing)]
    query = (
        select(Run.id, func.count().over().label("n"))
        .where(Run.project_id == project_id, or_(*kin))
        .order_by(Run.id.in_(list(run_ids)).desc(), kin[0].desc(), Run.id.desc())
        .limit(limit)
    )
    found = session.execute(query).all()
    return [row.id for row in found], found[0].n if found else 0


def list_run_stages(session: Session, run_ids: Iterable[int]) -> Rows:
    """The runs with their stages in order, or one row for a run without any: run columns as run_id, run_name
    ..., owner, position, stage_id, reused, score_delta and columns of the stage."""
    named = (Run.id, Run.name, Run.recipe, Run.model, Run.status, Run.spec_hash, Run.cloned_from_id, Run.environment)
    query = (
        select(
            *(column.label(f"run_{column.key}") for column in named),
            User.name.label("owner"),
            RunStage.position,
            RunStage.stage_id,
            RunStage.reused,
            RunStage.score_delta,
            *(getattr(Stage, name) for name in _STAGE),
        )
        .join(User, User.id == Run.owner_id)
        .outerjoin(RunStage, (RunStage.run_id == Run.id) & (RunStage.position >= 0))
        .outerjoin(Stage, Stage.id == RunStage.stage_id)
        .where(Run.id.in_(list(run_ids)))
        .order_by(Run.id, RunStage.position)
    )
    return session.execute(query).all()


def list_sources(session: Session, run_ids: Iterable[int]) -> Rows:
    """The sources of these runs: run_id, source_id, role, position."""
    columns = (RunSource.run_id, RunSource.source_id, RunSource.role, RunSource.position)
    query = select(*columns).where(RunSource.run_id.in_(list(run_ids)))
    return session.execute(query.order_by(*columns)).all()


def _closure(asked: Select[int], near: Any, far: Any, name: str) -> Any:
    """The given runs and all that are reachable from them by repeated steps from `near` to `far`."""
    reached = asked.cte(name, recursive=True)
    return reached.union(select(far).join(reached, near == reached.c.id))
