"""The points of the trade-off chart: measured stages of a project, joined and thinned in SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Select, exists, func, select, union_all
from sqlalchemy.orm import Session, aliased

from core.analysis import seeds
from core.store.models import Latency, Run, RunStage, Stage, User
from core.store.rows import Rows
from core.store.tradeoffs import thinning
from core.store.tradeoffs.columns import AXES, axis_column, details, falling, join_tables
from core.store.tradeoffs.filters import Conditions, PointFilter, is_between, is_chosen, is_of_project, is_wanted

RECENT = 128  # at most so many stages are read at each visit


def list_tasks(session: Session, project_id: int, *, after: int = 0, upto: int | None = None) -> Rows:
    """Tasks with measured stages: task, task_hash, score_name, score_unit, higher_is_better, n_stages."""
    mine = exists().where(RunStage.project_id == project_id, RunStage.stage_id == Stage.id)
    counted = (
        select(Stage.task_hash, func.max(Stage.id).label("last_id"), func.count().label("n_stages"))
        .where(Stage.trained, mine, *is_between(after, upto))
        .group_by(Stage.task_hash)
        .subquery()
    )
    columns = (Stage.task, Stage.task_hash, Stage.score_name, Stage.score_unit, Stage.higher_is_better)
    query = select(*columns, counted.c.n_stages).join(counted, counted.c.last_id == Stage.id)
    return session.execute(query.order_by(counted.c.n_stages.desc())).all()


def list_conditions(session: Session, chosen: PointFilter) -> list[tuple[Conditions, int]]:
    """Conditions under which the chosen stages were timed, the most frequent first, with their counts."""
    columns = [getattr(Latency, field.name) for field in fields(Conditions)]
    query = (
        select(*columns, func.count().label("n"))
        .join(Stage, Stage.id == Latency.stage_id)
        .where(*is_chosen(chosen))
        .group_by(*columns)
        .order_by(func.count().desc())
    )
    return [(Conditions(*row[:-1]), row.n) for row in session.execute(query)]


def find_last_settled(session: Session) -> int:
    """The id of the newest stage except for the last few; points up to it are worth caching."""
    newest = session.scalar(select(func.max(Stage.id))) or 0
    return newest - newest % RECENT


def find_last_change(session: Session, project_id: int, *, upto: int | None = None) -> tuple[int, ...]:
    """A value that changes when a run of the project gains or loses a stage, or a latency is recorded.

    With `upto`, of stages with ids up to that one.
    """
    mine = select(func.count(), func.max(RunStage.run_id)).where(RunStage.project_id == project_id)
    timed = select(Latency.id).order_by(Latency.id.desc()).limit(1)
    if upto is not None:
        mine, timed = mine.where(RunStage.stage_id <= upto), timed.where(Latency.stage_id <= upto)
    n_stages, run_id = session.execute(mine).one()
    return n_stages, run_id or 0, session.scalar(timed) or 0


def list_kinds(session: Session, project_id: int, task_hash: str) -> list[tuple[str, str]]:
    """(family, model) pairs of a task's measured stages."""
    query = select(Stage.family, Stage.model).where(*is_chosen(PointFilter(project_id, task_hash)))
    return [(row.family, row.model) for row in session.execute(query.distinct())]


def list_candidates(
    session: Session, chosen: PointFilter, axes: Iterable[str], *, as_one: bool = False
) -> dict[str, list[Any]]:
    """The columns for a decision, for every stage: stage_id, score, size_bytes and `axes`, None: not measured.

    With `as_one` of every recipe: the first stage's id, and the means over the last stage of each seed.
    """
    names = list(dict.fromkeys(("score", "size_bytes", *axes)))
    columns = [axis_column(chosen, name).label(name) for name in names]
    query = select(Stage.id.label("stage_id"), *columns)
    query = join_tables(query, chosen, names, optional=True).where(*is_chosen(chosen))
    found = (_by_recipe(query, names) if as_one else query).subquery("found")
    rows = session.execute(select(found).order_by(found.c.stage_id)).all()
    values = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in ("id", *names)]
    return dict(zip(("stage_id", *names), values, strict=True))


def list_points(
    session: Session,
    chosen: PointFilter,
    x: str = "size_bytes",
    y: str = "score",
    *,
    limit: int = thinning.MOST,
    logs: thinning.Logs = thinning.LINEAR,
) -> list[dict[str, Any]]:
    """Points with values on both axes: the columns of `_details`, and the number `n` of points that a row represents.

    More than `limit` points are thinned: each cell of a grid over the two axes keeps one stage, and every
    stage on the frontier of the two axes is kept.
    """
    n = thinning.thin(session, _points(chosen, x, y), limit, logs)
    query = details(chosen).where(Stage.id.in_(list(n))).order_by(Stage.id)
    return [{**row, "n": n[row["stage_id"]]} for row in session.execute(query).mappings()]


def list_recipes(
    session: Session,
    chosen: PointFilter,
    x: str = "size_bytes",
    y: str = "score",
    *,
    limit: int = thinning.MOST,
    logs: thinning.Logs = thinning.LINEAR,
) -> list[dict[str, Any]]:
    """The same points with replicates merged: values are means over the seeds.

    A row is that of the recipe's last stage, with the values of `core.analysis.seeds.merged`; `stage_id` is the
    first one's. If a recipe was computed several times with one seed, the last one counts.
    """
    n = thinning.thin(session, _recipes(chosen, x, y), limit, logs)
    rows = _with_their_recipes(session, chosen, n)
    found = seeds.merged([row for row in rows if row[x] is not None and row[y] is not None], AXES)
    return [{**row, "n": n[row["stage_id"]]} for row in found if row["stage_id"] in n]


def list_with_recent(
    session: Session, settled: list[dict[str, Any]], chosen: PointFilter, x: str, y: str, *, upto: int, as_one: bool
) -> list[dict[str, Any]]:
    """The points of `list_points`, or with `as_one` of `list_recipes`, read up to `upto`, and all later ones.

    Later points are not thinned. A recipe with a new seed is read again.
    """
    recent = session.scalars(select(Stage.id).where(*is_chosen(replace(chosen, after=upto)))).all()
    if not recent:
        return settled
    read = list_recipes_by_id if as_one else list_points_by_id
    found = [{**row, "n": 1} for row in read(session, chosen, recent)]
    now = {row["recipe_hash"]: row["stage_id"] for row in found if as_one and row["recipe_hash"] is not None}
    moved = {row["stage_id"]: now[row["recipe_hash"]] for row in settled if row["recipe_hash"] in now}
    rows = [row for row in settled if row["recipe_hash"] not in now]
    rows += [row for row in found if row[x] is not None and row[y] is not None]
    if as_one:
        seeds.refer_to_recipes(rows, moved)
    return sorted(rows, key=lambda row: row["stage_id"])


def list_all_points(session: Session, chosen: PointFilter, x: str, y: str) -> list[dict[str, Any]]:
    """The same points without thinning, for exports."""
    known = _points(chosen, x, y).subquery("known")
    query = details(chosen).join(known, known.c.stage_id == Stage.id).order_by(Stage.id)
    return [dict(row) for row in session.execute(query).mappings()]


def list_in_time(session: Session, chosen: PointFilter, x: str, y: str) -> dict[str, list[Any]]:
    """Columns stage_id, x, y (as `list_points` has them) and at of all points, in the order of recording."""
    axes = [axis_column(chosen, name) for name in (x, y)]
    query = select(Stage.id, *axes, Stage.created_at)
    query = join_tables(query, chosen, (x, y)).where(*is_chosen(chosen), *(axis.is_not(None) for axis in axes))
    rows = session.execute(query.order_by(Stage.created_at, Stage.id)).all()
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return dict(zip(("stage_id", "x", "y", "at"), columns, strict=True))


def list_makers(session: Session, project_id: int, stage_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """For each stage: its label, model and the project's first run with it, with the owner's name."""
    first = (
        select(RunStage.stage_id, func.min(RunStage.run_id).label("run_id"))
        .where(RunStage.project_id == project_id, RunStage.stage_id.in_(list(stage_ids)))
        .group_by(RunStage.stage_id)
        .subquery("first")
    )
    query = (
        select(Stage.id.label("stage_id"), Stage.label, Stage.model, first.c.run_id, User.name.label("owner"))
        .join(first, first.c.stage_id == Stage.id)
        .join(Run, Run.id == first.c.run_id)
        .join(User, User.id == Run.owner_id)
    )
    return {row["stage_id"]: dict(row) for row in session.execute(query).mappings()}


def list_points_by_id(session: Session, chosen: PointFilter, stage_ids: Iterable[int]) -> list[dict[str, Any]]:
    """The points of these stages, for the table below the chart."""
    query = details(chosen).where(Stage.id.in_(list(stage_ids)), *is_chosen(chosen))
    return [dict(row) for row in session.execute(query.order_by(Stage.id)).mappings()]


def list_recipes_by_id(session: Session, chosen: PointFilter, stage_ids: Iterable[int]) -> list[dict[str, Any]]:
    """The recipes of these stages as points, as in `list_recipes`, over all measurements."""
    return seeds.merged(_with_their_recipes(session, chosen, stage_ids), AXES)


def _points(chosen: PointFilter, x: str, y: str) -> Select[*tuple[Any, ...]]:
    """stage_id, x and y of the points with values on both axes, negated where more is better."""
    axes = [(name, axis_column(chosen, axis), axis) for name, axis in (("x", x), ("y", y))]
    known = [column.is_not(None) for _, column, _ in axes]
    columns = [falling(column, axis).label(name) for name, column, axis in axes]
    query = select(Stage.id.label("stage_id"), *columns)
    return join_tables(query, chosen, (x, y)).where(*is_chosen(chosen), *known)


def _recipes(chosen: PointFilter, x: str, y: str) -> Select[*tuple[Any, ...]]:
    """The same for recipes: the first stage's id, and the means over the last stage of each seed."""
    return _by_recipe(_points(chosen, x, y), ("x", "y"))


def _by_recipe(stages: Select[*tuple[Any, ...]], names: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """The stage_id and the given columns of a query on stages, with replicates merged.

    Ranking stages within their recipes is slow, so only stages with replicates are ranked.
    """
    several = select(Stage.recipe_hash).where(Stage.recipe_hash.is_not(None))
    repeated = several.group_by(Stage.recipe_hash).having(func.count() > 1).cte("repeated")
    one = aliased(Stage)
    again = select(one.id).join(repeated, repeated.c.recipe_hash == one.recipe_hash)
    newest_first = func.row_number().over(partition_by=(Stage.recipe_hash, Stage.seeds_hash), order_by=Stage.id.desc())
    ranked = (
        stages.where(Stage.id.in_(again))
        .add_columns(Stage.recipe_hash.label("recipe"), newest_first.label("age"))
        .subquery("ranked")
    )
    means = [func.avg(ranked.c[name]).label(name) for name in names]
    merged = select(func.min(ranked.c.stage_id).label("stage_id"), *means).where(ranked.c.age == 1)
    alone = stages.where(Stage.id.not_in(again))
    drawn = union_all(alone, merged.group_by(ranked.c.recipe)).subquery("drawn")
    return select(drawn.c.stage_id, *(drawn.c[name] for name in names))


def _with_their_recipes(session: Session, chosen: PointFilter, stage_ids: Iterable[int]) -> list[dict[str, Any]]:
    """The details of stages and their replicates, which have the same task.

    Their ids are read first, because a database may otherwise scan the whole task.
    """
    known = aliased(Stage)
    asked = list(stage_ids)
    alike = select(Stage.id).join(known, known.recipe_hash == Stage.recipe_hash).where(known.id.in_(asked))
    ids = sorted({*asked, *session.scalars(alike.where(*is_between(chosen.after, chosen.upto)))})
    query = details(chosen).where(Stage.id.in_(ids), is_of_project(chosen), *is_wanted(chosen)).order_by(Stage.id)
    return [dict(row) for row in session.execute(query).mappings()]
