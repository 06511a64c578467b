"""Artifacts that can be removed: old ones that are no longer needed.

A stage's rows are kept: its point stays on every chart, and a step that needs its weights computes them again.
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, aliased

from core.store.models import UNFINISHED, Artifact, Run, RunSource, RunStage, RunStatus, Stage


@dataclass(frozen=True)
class Removable:
    """A stage whose artifact can be removed: its id, its key and its size in bytes."""

    stage_id: int
    key: str
    bytes: int


def count_running(session: Session) -> int:
    """The number of runs in progress, each of which may read any artifact."""
    return session.scalar(select(func.count()).select_from(Run).where(Run.status == RunStatus.RUNNING)) or 0


def list_removable(session: Session, ended_before: float, *, last_too: bool) -> list[Removable]:
    """Artifacts of stages that belong only to runs that ended before `ended_before` (seconds since 1970).

    The last stage of a run, which provides its model, is kept unless `last_too`, and always while an
    unfinished run refers to its run.
    """
    later = aliased(RunStage)
    is_last = ~select(later).where(later.run_id == RunStage.run_id, later.position > RunStage.position).exists()
    is_named = (
        select(RunSource)
        .join(Run, Run.id == RunSource.run_id)
        .where(RunSource.source_id == RunStage.run_id, Run.status.in_(UNFINISHED))
        .exists()
    )
    needed_by_run = Run.status.in_(UNFINISHED) | (Run.ended_at >= ended_before) | is_named
    needed = needed_by_run if last_too else needed_by_run | is_last
    kept = select(RunStage.stage_id).join(Run, Run.id == RunStage.run_id).where(needed)
    query = (
        select(Stage.id, Stage.key, Artifact.bytes)
        .join(Artifact, Artifact.stage_id == Stage.id)
        .where(Stage.id.not_in(kept))
        .order_by(Stage.id)
    )
    return [Removable(*row) for row in session.execute(query)]


def forget_artifact(session: Session, stage_id: int) -> None:
    """Record that the weights of a stage are gone."""
    session.execute(delete(Artifact).where(Artifact.stage_id == stage_id))
