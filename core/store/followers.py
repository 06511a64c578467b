"""Stages that directly follow a stage, in any run of a project."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from core.store.models import RunStage, Stage
from core.store.rows import Rows


def list_followers(session: Session, project_id: int, stage_id: int, technique: str) -> Rows:
    """Stages of a technique directly after a stage, once each, oldest first.

    Columns: `stage_id`, `run_id` (the first with it), `label`, `details`, `size_bytes`, and `kl` on the test examples.
    """
    before, after = aliased(RunStage), aliased(RunStage)
    query = (
        select(
            Stage.id.label("stage_id"),
            func.min(after.run_id).label("run_id"),
            Stage.label,
            Stage.details,
            Stage.size_bytes,
            func.min(after.kl).label("kl"),
        )
        .join(after, after.stage_id == Stage.id)
        .join(before, (before.run_id == after.run_id) & (before.position == after.position - 1))
        .where(before.stage_id == stage_id, before.project_id == project_id, Stage.technique == technique)
        .group_by(Stage.id)
        .order_by(Stage.id)
    )
    return session.execute(query).all()
