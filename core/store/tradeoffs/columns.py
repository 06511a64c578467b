"""The columns of a point: its axes, and everything that a chart shows of it."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import ColumnElement, Float, Select, and_, case, func, literal, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import aliased

from core.quantities import AXES as AXIS_QUANTITIES
from core.quantities import BY_NAME, QUANTITIES, Origin, Quantity
from core.store.models import Latency, RunStage, Stage
from core.store.stages import reference_size
from core.store.tradeoffs.filters import PointFilter

AXES = tuple(quantity.name for quantity in AXIS_QUANTITIES)
TIMED = {"p50_ms": Latency.p50_ms, "p95_ms": Latency.p95_ms, "speed_up": 1.0 / Latency.ratio}
INTERVALS = {"speed_up_low": 1.0 / Latency.ratio_high, "speed_up_high": 1.0 / Latency.ratio_low}
IDENTITY = ("technique", "family", "label", "model", "compressed", "higher_is_better", "recipe_hash", "seeds_hash")
Compared = aliased(RunStage, name="compared")  # a stage's place in the last run that measured its fidelity


def falling(column: ColumnElement[Any], axis: str) -> ColumnElement[Any]:
    """The axis turned so that less is better."""
    if axis == "score":
        return case((Stage.higher_is_better, -column), else_=column)
    return column if BY_NAME[axis].better == "less" else -column


def axis_column(chosen: PointFilter, name: str) -> ColumnElement[Any]:
    """The column of a quantity; a query that selects it is one of `joined`."""
    if name in TIMED:
        return cast("ColumnElement[Any]", TIMED[name]) if chosen.conditions else sql_cast(None, Float)
    return dict(_columns(chosen, BY_NAME[name]))[name]


def join_tables(
    query: Select[*tuple[Any, ...]], chosen: PointFilter, names: Iterable[str], *, optional: bool = False
) -> Select[*tuple[Any, ...]]:
    """A query on stages with the tables that the named quantities need.

    Without `optional`, stages without a row there are left out.
    """
    origins = {BY_NAME[name].origin for name in names}
    if Origin.LATENCY in origins:
        query = query.join(Latency, Latency.id == last_latency(chosen), isouter=optional)
    if Origin.COMPARISON in origins:
        query = query.join(Compared, _is_last_comparison(chosen.project_id), isouter=optional)
    return query


def details(chosen: PointFilter) -> Select[*tuple[Any, ...]]:
    """A point's columns; a stage that several runs share is one point and links to the last of them."""
    mine = (RunStage.project_id == chosen.project_id, RunStage.stage_id == Stage.id)
    last_run = select(func.max(RunStage.run_id)).where(*mine).correlate(Stage).scalar_subquery()
    n_runs = select(func.count()).where(*mine).correlate(Stage).scalar_subquery()
    reference = select(func.max(RunStage.reference_stage_id)).where(*mine).correlate(Stage).scalar_subquery()
    query = select(
        Stage.id.label("stage_id"),
        last_run.label("run_id"),
        n_runs.label("n_runs"),
        reference.label("reference_stage_id"),
        *(getattr(Stage, name) for name in IDENTITY),
        *(column.label(name) for quantity in QUANTITIES for name, column in _columns(chosen, quantity)),
        Latency.kernel,
        Latency.disturbed,
    ).select_from(Stage)
    return join_tables(query, chosen, AXES, optional=True)


def _columns(chosen: PointFilter, quantity: Quantity) -> list[tuple[str, ColumnElement[Any]]]:
    """A quantity's column and those of its interval, by their names in a point."""
    if quantity.origin is Origin.LATENCY:
        return [(name, cast("ColumnElement[Any]", {**TIMED, **INTERVALS}[name])) for name in quantity.columns]
    if quantity.origin is Origin.SIZES:
        return [(quantity.name, _compression_ratio(chosen.project_id))]
    if quantity.origin is Origin.SCORES:
        return [(quantity.name, Stage.scores[quantity.score].as_float())]
    table: Any = Compared if quantity.origin is Origin.COMPARISON else Stage
    return [(name, getattr(table, name)) for name in quantity.columns]


def _is_last_comparison(project_id: int) -> ColumnElement[bool]:
    """Whether a row of `Compared` is the stage's in the last run that measured its fidelity."""
    place = aliased(RunStage)
    last = (
        select(func.max(place.run_id))
        .where(place.project_id == project_id, place.stage_id == Stage.id, RunStage.has_fidelity(place))
        .correlate(Stage)
        .scalar_subquery()
    )
    same = (Compared.project_id == project_id, Compared.stage_id == Stage.id, Compared.run_id == last)
    return and_(*same, RunStage.has_fidelity(Compared))


def _compression_ratio(project_id: int) -> ColumnElement[Any]:
    """The reference's size divided by the stage's."""
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
    """Id of the stage's last latency under the conditions; none if no conditions were chosen."""
    if chosen.conditions is None:
        return literal(-1)
    alike = aliased(Latency)
    same: list[ColumnElement[bool]] = [alike.stage_id == Stage.id, alike.operating_point_id.is_(None)]
    for name, value in asdict(chosen.conditions).items():
        column = getattr(alike, name)
        same.append(column.is_(None) if value is None else column == value)
    return select(func.max(alike.id)).where(*same).correlate(Stage).scalar_subquery()
