"""What is read of a point: its axes, and all that a chart says of it."""

from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import ColumnElement, Float, Select, case, func, literal, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import aliased

from core.store.models import Latency, RunStage, Stage
from core.store.stages import reference_size
from core.store.tradeoffs.filters import PointFilter

AXES = {  # axis -> whether less of it is better; a score's direction is its task's
    "size_bytes": True,
    "score": False,
    "p50_ms": True,
    "p95_ms": True,
    "macs": True,
    "peak_memory_bytes": True,
    "parameters": True,
    "nonzeros": True,
    "compression_ratio": False,
    "speed_up": False,
}
TIMED = {"p50_ms": Latency.p50_ms, "p95_ms": Latency.p95_ms, "speed_up": 1.0 / Latency.ratio}


def falling(column: ColumnElement[Any], axis: str) -> ColumnElement[Any]:
    """The axis turned so that less is better."""
    if axis == "score":
        return case((Stage.higher_is_better, -column), else_=column)
    return column if AXES[axis] else -column


def axis_column(chosen: PointFilter, name: str) -> ColumnElement[Any]:
    if name in TIMED:
        return cast("ColumnElement[Any]", TIMED[name]) if chosen.conditions else sql_cast(None, Float)
    if name == "compression_ratio":
        return _compression_ratio(chosen.project_id)
    return cast("ColumnElement[Any]", getattr(Stage, name))


def details(chosen: PointFilter) -> Select[*tuple[Any, ...]]:
    """A point's columns; a stage that several runs share is one point and leads to the last of them."""
    mine = (RunStage.project_id == chosen.project_id, RunStage.stage_id == Stage.id)
    last_run = select(func.max(RunStage.run_id)).where(*mine).correlate(Stage).scalar_subquery()
    n_runs = select(func.count()).where(*mine).correlate(Stage).scalar_subquery()
    reference = select(func.max(RunStage.reference_stage_id)).where(*mine).correlate(Stage).scalar_subquery()
    names = (
        "technique", "family", "label", "model", "compressed", "size_bytes", "score", "score_low", "score_high",
        "higher_is_better", "macs", "peak_memory_bytes", "parameters", "nonzeros", "nominal_bits", "nominal_sparsity",
        "recipe_hash", "seeds_hash",
    )  # fmt: skip
    query = select(
        Stage.id.label("stage_id"),
        last_run.label("run_id"),
        n_runs.label("n_runs"),
        reference.label("reference_stage_id"),
        *(getattr(Stage, name) for name in names),
        _compression_ratio(chosen.project_id).label("compression_ratio"),
    )
    return (
        query.select_from(Stage)
        .outerjoin(Latency, Latency.id == last_latency(chosen))
        .add_columns(
            *(column.label(name) for name, column in TIMED.items()),
            (1.0 / Latency.ratio_high).label("speed_up_low"),
            (1.0 / Latency.ratio_low).label("speed_up_high"),
            Latency.kernel,
            Latency.disturbed,
        )
    )


def _compression_ratio(project_id: int) -> ColumnElement[Any]:
    """The reference's size over the stage's."""
    reference = aliased(Stage)
    size = (
        select(func.max(reference_size(reference)))
        .join(RunStage, RunStage.reference_stage_id == reference.id)
        .where(RunStage.project_id == project_id, RunStage.stage_id == Stage.id)
        .correlate(Stage)
        .scalar_subquery()
    )
    return sql_cast(size, Float) / Stage.size_bytes


def last_latency(chosen: PointFilter) -> ColumnElement[Any]:
    """Id of the stage's last latency under the conditions; of none where no conditions were chosen."""
    if chosen.conditions is None:
        return literal(-1)
    alike = aliased(Latency)
    same: list[ColumnElement[bool]] = [alike.stage_id == Stage.id, alike.operating_point_id.is_(None)]
    for name, value in asdict(chosen.conditions).items():
        column = getattr(alike, name)
        same.append(column.is_(None) if value is None else column == value)
    return select(func.max(alike.id)).where(*same).correlate(Stage).scalar_subquery()
