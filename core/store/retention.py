"""Which artifacts an installation can do without: old ones that nothing asks for any more.

Rows of a stage stand: its point stays on every chart, and a step that needs its weights again computes them again.
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, aliased

from core.store.models import UNFINISHED, Artifact, Run, RunSource, RunStage, RunStatus, Stage


@dataclass(frozen=True)
class Removable:
    """A stage whose artifact may go: its id, its key, and the bytes that it takes."""

    stage_id: int
    key: str
    bytes: int


def count_running(session: Session) -> int:
    """How many runs are being executed: each may read any artifact at any time."""
    return session.scalar(select(func.count()).select_from(Run).where(Run.status == RunStatus.RUNNING)) or 0


def list_removable(session: Session, ended_before: float, *, last_too: bool) -> list[Removable]:
    """Artifacts of stages that no run has which is unfinished or ended after `ended_before` (seconds since 1970).

    The last stage of a run, which its model is taken from, stays unless `last_too`; and it stays in any case while an
    unfinished run names its run.
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
    """Take note that the weights of a stage are gone."""
    session.execute(delete(Artifact).where(Artifact.stage_id == stage_id))
