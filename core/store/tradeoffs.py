"""The points of the trade-off chart: measured stages of a project, joined and thinned in SQL."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session, aliased

from core.store.models import Latency, RunStage, Stage
from core.store.rows import Rows

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
TIMED = {"p50_ms", "p95_ms", "speed_up"}
GRID = 60  # cells along each axis when points are thinned


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a latency was measured; only equal ones share an axis."""

    hardware: str
    runtime: str
    dtype: str
    threads: int
    batch: int
    length: int | None
    phase: str


@dataclass(frozen=True)
class PointFilter:
    """Which stages are points: of one project and one task (scores of two tasks share no axis)."""

    project_id: int
    task_hash: str
    models: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    run_ids: tuple[int, ...] = ()
    conditions: Conditions | None = None  # without one, latencies are empty


def list_tasks(session: Session, project_id: int) -> Rows:
    """Tasks with measured stages: task, task_hash, score_name, score_unit, higher_is_better, n_stages."""
    mine = select(RunStage.stage_id).where(RunStage.project_id == project_id).distinct().subquery()
    columns = (Stage.task, Stage.task_hash, Stage.score_name, Stage.score_unit, Stage.higher_is_better)
    query = (
        select(*columns, func.count().label("n_stages"))
        .join(mine, mine.c.stage_id == Stage.id)
        .where(Stage.trained)
        .group_by(*columns)
        .order_by(func.count().desc())
    )
    return session.execute(query).all()


def list_conditions(session: Session, project_id: int, task_hash: str) -> list[tuple[Conditions, int]]:
    """Conditions under which stages of a task were timed, the most frequent first, with their counts."""
    mine = select(RunStage.stage_id).where(RunStage.project_id == project_id).distinct().subquery()
    columns = (
        Latency.hardware,
        Latency.runtime,
        Latency.dtype,
        Latency.threads,
        Latency.batch,
        Latency.length,
        Latency.phase,
    )
    query = (
        select(*columns, func.count().label("n"))
        .join(mine, mine.c.stage_id == Latency.stage_id)
        .join(Stage, Stage.id == Latency.stage_id)
        .where(Stage.task_hash == task_hash)
        .group_by(*columns)
        .order_by(func.count().desc())
    )
    return [(Conditions(*row[:-1]), row.n) for row in session.execute(query)]


def list_points(
    session: Session, chosen: PointFilter, x: str = "size_bytes", y: str = "score", limit: int = 4000
) -> Rows:
    """Points with both axes known: every column of `_points`, and `n` of points that a row stands for.

    More than `limit` points are thinned: of each cell of a grid over the two axes one stage is kept, and
    every stage on the two axes' frontier or serving as a reference.
    """
    points = _points(chosen).subquery("points")
    known = select(points).where(points.c[x].is_not(None), points.c[y].is_not(None))
    n_points = session.scalar(select(func.count()).select_from(known.subquery())) or 0
    if n_points <= limit:
        return session.execute(known.add_columns(literal(1).label("n")).order_by(points.c.stage_id)).all()
    return session.execute(_thinned(known, x, y, limit)).all()


def list_points_by_id(session: Session, chosen: PointFilter, stage_ids: Iterable[int]) -> Rows:
    """The points of these stages, for the table below the chart."""
    points = _points(chosen).subquery("points")
    return session.execute(select(points).where(points.c.stage_id.in_(list(stage_ids)))).all()


def _points(chosen: PointFilter) -> Select[*tuple[Any, ...]]:
    attached = _attached(chosen)
    reference = aliased(Stage)
    query = (
        select(
            Stage.id.label("stage_id"),
            attached.c.run_id,
            attached.c.n_runs,
            Stage.technique,
            Stage.family,
            Stage.label,
            Stage.model,
            Stage.compressed,
            Stage.size_bytes,
            Stage.score,
            Stage.score_low,
            Stage.score_high,
            Stage.higher_is_better,
            Stage.macs,
            Stage.peak_memory_bytes,
            Stage.parameters,
            Stage.nonzeros,
            Stage.nominal_bits,
            Stage.nominal_sparsity,
            attached.c.reference_stage_id,
            (cast(reference.size_bytes, Float) / Stage.size_bytes).label("compression_ratio"),
        )
        .join(attached, attached.c.stage_id == Stage.id)
        .outerjoin(reference, reference.id == attached.c.reference_stage_id)
        .where(Stage.task_hash == chosen.task_hash, Stage.trained)
    )
    for column, values in (
        (Stage.model, chosen.models),
        (Stage.family, chosen.families),
        (Stage.technique, chosen.techniques),
    ):
        if values:
            query = query.where(column.in_(values))
    return _with_latency(query, chosen.conditions)


def _attached(chosen: PointFilter) -> Subquery:
    """Each stage of the project once, with the last of the runs that have it."""
    query = (
        select(
            RunStage.stage_id,
            func.max(RunStage.run_id).label("run_id"),
            func.count().label("n_runs"),
            func.max(RunStage.reference_stage_id).label("reference_stage_id"),
        )
        .where(RunStage.project_id == chosen.project_id)
        .group_by(RunStage.stage_id)
    )
    if chosen.run_ids:
        query = query.where(RunStage.run_id.in_(chosen.run_ids))
    return query.subquery("attached")


def _with_latency(query: Select[*tuple[Any, ...]], conditions: Conditions | None) -> Select[*tuple[Any, ...]]:
    """The last latency of each stage under the conditions."""
    if conditions is None:
        empty = cast(None, Float)
        names = ("p50_ms", "p95_ms", "speed_up", "speed_up_low", "speed_up_high")
        return query.add_columns(*(empty.label(name) for name in names), cast(None, Integer).label("disturbed"))
    alike = aliased(Latency)
    same: list[ColumnElement[bool]] = [
        alike.stage_id == Stage.id,
        alike.hardware == conditions.hardware,
        alike.runtime == conditions.runtime,
        alike.dtype == conditions.dtype,
        alike.threads == conditions.threads,
        alike.batch == conditions.batch,
        alike.length.is_(None) if conditions.length is None else alike.length == conditions.length,
        alike.phase == conditions.phase,
        alike.operating_point_id.is_(None),
    ]
    last = select(func.max(alike.id)).where(and_(*same)).correlate(Stage).scalar_subquery()
    return query.outerjoin(Latency, Latency.id == last).add_columns(
        Latency.p50_ms,
        Latency.p95_ms,
        (1.0 / Latency.ratio).label("speed_up"),
        (1.0 / Latency.ratio_high).label("speed_up_low"),
        (1.0 / Latency.ratio_low).label("speed_up_high"),
        cast(Latency.disturbed, Integer).label("disturbed"),
    )


def _thinned(known: Select[*tuple[Any, ...]], x: str, y: str, limit: int) -> Select[*tuple[Any, ...]]:
    points = known.cte("known")
    low_x, low_y = (_ascending(points.c[axis], points, axis) for axis in (x, y))
    spread = select(
        func.min(points.c[x]).label("x0"),
        func.max(points.c[x]).label("x1"),
        func.min(points.c[y]).label("y0"),
        func.max(points.c[y]).label("y1"),
    ).cte("spread")
    cell_x = _cell(points.c[x], spread.c.x0, spread.c.x1)
    cell_y = _cell(points.c[y], spread.c.y0, spread.c.y1)
    best_before = func.min(low_y).over(order_by=(low_x, low_y), rows=(None, -1))
    ranked = (
        select(
            points,
            func.row_number().over(partition_by=(cell_x, cell_y), order_by=low_y).label("place"),
            func.count().over(partition_by=(cell_x, cell_y)).label("n"),
            best_before.label("best_before"),
            low_y.label("low_y"),
        )
        .join(spread, literal(True))
        .subquery("ranked")
    )
    on_frontier = or_(ranked.c.best_before.is_(None), ranked.c.low_y < ranked.c.best_before)
    n = case((ranked.c.place == 1, ranked.c.n), else_=1).label("n")
    columns = [ranked.c[column.name] for column in points.c]
    return select(*columns, n).where(or_(ranked.c.place == 1, on_frontier)).order_by(ranked.c.stage_id).limit(2 * limit)


def _ascending(column: ColumnElement[Any], points: Any, axis: str) -> ColumnElement[Any]:
    """The axis turned so that less is better."""
    if axis == "score":
        return case((points.c.higher_is_better, -column), else_=column)
    return column if AXES[axis] else -column


def _cell(column: ColumnElement[Any], low: ColumnElement[Any], high: ColumnElement[Any]) -> ColumnElement[int]:
    width = (high - low) / float(GRID)
    return cast(case((width > 0, (column - low) / width), else_=0.0), Integer)
