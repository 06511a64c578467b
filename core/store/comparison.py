"""Data of the Compare page: stages of runs of one project, with what distinguishes the runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.quantities import Origin, kept_in
from core.store.models import Latency, Run, RunStage, Stage, User
from core.store.rows import Rows

_RUN = (Run.id, Run.name, Run.spec, Run.status, Run.recipe, Run.environment)
_STAGE = ("key", "label", "family", "trained", "task_hash", "score_name", "score_unit", "higher_is_better")
_OF_STAGE, _OF_PAIR, _FURTHER = (kept_in(origin) for origin in (Origin.STAGE, Origin.COMPARISON, Origin.SCORES))


@dataclass(frozen=True)
class ComparedItem:
    """A run's stage to compare: the one at a position, or its last one."""

    run_id: int
    position: int | None = None


def load_compared_stages(session: Session, project_id: int, items: Sequence[ComparedItem]) -> Rows:
    """The items' runs and stages, in no order: run columns as run_id, run_name ..., stage columns, all quantities.

    Returns all stages of each run, from which the caller selects; runs without stages are left out.
    """
    query = (
        select(
            *(column.label(f"run_{column.key}") for column in _RUN),
            User.name.label("owner"),
            RunStage.position,
            RunStage.reference_stage_id,
            Stage.id.label("stage_id"),
            *(getattr(Stage, name) for name in _STAGE),
            *(getattr(Stage, column) for quantity in _OF_STAGE for column in quantity.columns),
            *(getattr(RunStage, column).label(column) for quantity in _OF_PAIR for column in quantity.columns),
            *(Stage.scores[quantity.score].as_float().label(quantity.name) for quantity in _FURTHER),
        )
        .join(RunStage, RunStage.run_id == Run.id)
        .join(Stage, Stage.id == RunStage.stage_id)
        .join(User, User.id == Run.owner_id)
        .where(Run.project_id == project_id, Run.id.in_({item.run_id for item in items}), RunStage.position >= 0)
        .order_by(Run.id, RunStage.position)
    )
    return session.execute(query).all()


def load_compared_latencies(session: Session, run_stages: Iterable[tuple[int, int]]) -> Rows:
    """Latencies of these (run, stage) pairs: every column of `latency`."""
    pairs = set(run_stages)
    query = select(*Latency.__table__.columns).where(
        Latency.run_id.in_({run for run, _ in pairs}), Latency.stage_id.in_({stage for _, stage in pairs})
    )
    return [row for row in session.execute(query) if (row.run_id, row.stage_id) in pairs]


def load_details(session: Session, stage_ids: Iterable[int]) -> dict[int, list[dict[str, object]]]:
    """Details of layers by stage; stages without any are left out."""
    query = select(Stage.id, Stage.details).where(Stage.id.in_(set(stage_ids)))
    told = {row.id: (row.details or {}).get("layers") for row in session.execute(query)}
    return {stage_id: layers for stage_id, layers in told.items() if layers}
