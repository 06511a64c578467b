"""Thinning in SQL: chooses which of very many points a chart draws."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, ColumnElement, Float, Integer, Select, case, func, literal, or_, select, union_all
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

COLUMNS, ROWS = 36, 20  # the range of each axis in cells, wide as they are high; the largest value has one of its own
MOST = 1000  # points that are all drawn: of more, marks would hide one another, and a browser takes long to draw them
BEYOND = 800.0  # no logarithm of a number is below its negative


@dataclass(frozen=True)
class Logs:
    """Which axes have a log scale, so that cells have equal sizes on the chart."""

    x: bool = False
    y: bool = False


LINEAR = Logs()


def thin(session: Session, points: Select[*tuple[Any, ...]], limit: int, logs: Logs) -> dict[int, int]:
    """Ids of the points to draw, each with the number of points that it represents.

    `points` selects `stage_id`, `x` and `y`, none of them null, where less is better. Up to `limit` points are all
    drawn; if there are more, each cell of a grid over both axes keeps its first point, and all points of the frontier
    are kept.
    """
    few = session.scalars(points.limit(limit + 1)).all()
    if len(few) <= limit:
        return dict.fromkeys(few, 1)
    return {row.stage_id: row.n for row in session.execute(_thinned(points, logs))}


def _thinned(points: Select[*tuple[Any, ...]], logs: Logs) -> Select[*tuple[Any, ...]]:
    placed = _placed(points.cte("points"), logs)
    cells = (
        select(
            placed.c.cell,
            func.min(placed.c.stage_id).label("stage_id"),
            func.count().label("n"),
            func.min(placed.c.y).label("y"),
        )
        .group_by(placed.c.cell)
        .cte("cells")
    )
    frontier = select(_frontier(placed, cells).c.stage_id, literal(1).label("n"))
    drawn = union_all(select(cells.c.stage_id, cells.c.n), frontier).subquery("drawn")
    return select(drawn.c.stage_id, func.max(drawn.c.n).label("n")).group_by(drawn.c.stage_id)


def _placed(points: CTE, logs: Logs) -> CTE:
    """Every point with its cell: numbered column by column along x, in a column along y."""
    x, y = _shown(points.c.x, logs.x), _shown(points.c.y, logs.y)
    ends = select(*_range(points.c.x, "x", logs.x, COLUMNS), *_range(points.c.y, "y", logs.y, ROWS)).cte("ends")
    column = sql_cast(func.floor((x - ends.c.x_low) * ends.c.x_cells), Integer)
    row = sql_cast(func.floor((y - ends.c.y_low) * ends.c.y_cells), Integer)
    cell = (column * (ROWS + 1) + row).label("cell")
    return select(points.c.stage_id, points.c.x, points.c.y, cell).join(ends, literal(True)).cte("placed")


def _range(
    column: ColumnElement[Any], name: str, log: bool, n_cells: int
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """The low end of the column as it is shown, and how many of `n_cells` one of its units takes."""
    low, high = _shown(func.min(column), log), _shown(func.max(column), log)
    span = sql_cast(func.coalesce(func.nullif(high - low, 0), 1), Float)
    return low.label(f"{name}_low"), (float(n_cells) / span).label(f"{name}_cells")


def _shown(column: ColumnElement[Any], log: bool) -> ColumnElement[Any]:
    return _logarithm(column) if log else column


def _logarithm(column: ColumnElement[Any]) -> ColumnElement[float]:
    """In the order of the column, negative values (of which more is better, turned) and zeros included."""
    value = sql_cast(column, Float)
    return case((value > 0, func.ln(value) + BEYOND), (value < 0, -func.ln(-value) - BEYOND), else_=0.0)


def _frontier(placed: CTE, cells: CTE) -> CTE:
    """The points that no other dominates, and the first of equal ones.

    Sorting all points would be slow. A cell without a y below the minimum of all columns before it
    has only dominated points, so few remain to be sorted.
    """
    column = (cells.c.cell - cells.c.cell % (ROWS + 1)).label("column")
    before = func.min(func.min(cells.c.y)).over(order_by=column, rows=(None, -1)).label("y")
    reached = select(column, before).group_by(column).subquery("reached")
    ahead = select(cells.c.cell).join(reached, reached.c.column == column)
    ahead = ahead.where(or_(reached.c.y.is_(None), cells.c.y < reached.c.y))
    best = func.min(placed.c.y).over(order_by=(placed.c.x, placed.c.y, placed.c.stage_id), rows=(None, -1))
    ranked = (
        select(placed.c.stage_id, placed.c.y, best.label("best")).where(placed.c.cell.in_(ahead)).subquery("ranked")
    )
    leads = or_(ranked.c.best.is_(None), ranked.c.y < ranked.c.best)
    return select(ranked.c.stage_id).where(leads).cte("frontier")
