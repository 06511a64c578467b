"""Curves: written in batches, read downsampled in SQL. The caller commits."""

from collections.abc import Iterable

from sqlalchemy import Integer, cast, func, literal, select
from sqlalchemy.orm import Session

from core.store.models import Point
from core.store.rows import Rows
from core.store.upsert import upsert


def add_points(session: Session, run_id: int, points: Iterable[tuple[str, int, float]]) -> None:
    """Add (curve, step, value) points; recomputed steps replace earlier ones."""
    last = {(curve, step): value for curve, step, value in points}
    rows = [{"run_id": run_id, "curve": c, "step": s, "value": v} for (c, s), v in last.items()]
    upsert(session, Point, rows, ["run_id", "curve", "step"], ["value"])


def list_curves(session: Session, run_ids: Iterable[int]) -> Rows:
    """The curves of runs: run_id, curve, n_points, last_step."""
    query = (
        select(Point.run_id, Point.curve, func.count().label("n_points"), func.max(Point.step).label("last_step"))
        .where(Point.run_id.in_(list(run_ids)))
        .group_by(Point.run_id, Point.curve)
        .order_by(Point.run_id, Point.curve)
    )
    return session.execute(query).all()


def read_curve(session: Session, run_id: int, curve: str, n_buckets: int = 500) -> Rows:
    """A curve in at most `n_buckets` rows: step (the bucket's first), n_points, low, mean, high."""
    mine = (Point.run_id == run_id, Point.curve == curve)
    first = select(func.min(Point.step)).where(*mine).scalar_subquery()
    last = select(func.max(Point.step)).where(*mine).scalar_subquery()
    bounds = select(first.label("first"), last.label("last")).cte("bounds")
    offset = (Point.step - bounds.c.first) * literal(n_buckets)
    bucket = cast(func.floor(offset / (bounds.c.last - bounds.c.first + 1.0)), Integer).label("bucket")
    query = (
        select(
            func.min(Point.step).label("step"),
            func.count().label("n_points"),
            func.min(Point.value).label("low"),
            func.avg(Point.value).label("mean"),
            func.max(Point.value).label("high"),
        )
        .select_from(Point)
        .join(bounds, literal(True))
        .where(*mine)
        .group_by(bucket)
        .order_by(bucket)
    )
    return session.execute(query).all()
