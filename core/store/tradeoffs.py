"""The points of the trade-off chart: measured stages of a project, joined and thinned in SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    Subquery,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session, aliased

from core.comparison import seeds
from core.store import thinning
from core.store.models import Latency, Run, RunStage, Stage, User
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
TIMED = {"p50_ms": Latency.p50_ms, "p95_ms": Latency.p95_ms, "speed_up": 1.0 / Latency.ratio}


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a latency was measured; only equal ones share an axis."""

    hardware: str
    runtime: str
    threads: int
    batch: int
    length: int | None
    phase: str


@dataclass(frozen=True)
class PointFilter:
    """Which stages are points: of one project and one task (scores of two tasks share no axis).

    References stay, whichever models, families, techniques or words are chosen.
    """

    project_id: int
    task_hash: str
    models: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    text: str = ""  # anywhere in the stage's label
    run_ids: tuple[int, ...] = ()
    conditions: Conditions | None = None  # without one, latencies are empty


def list_tasks(session: Session, project_id: int) -> Rows:
    """Tasks with measured stages: task, task_hash, score_name, score_unit, higher_is_better, n_stages."""
    mine = _stages_of(project_id)
    counted = (
        select(Stage.task_hash, func.max(Stage.id).label("last_id"), func.count().label("n_stages"))
        .join(mine, mine.c.stage_id == Stage.id)
        .where(Stage.trained)
        .group_by(Stage.task_hash)
        .subquery()
    )
    columns = (Stage.task, Stage.task_hash, Stage.score_name, Stage.score_unit, Stage.higher_is_better)
    query = select(*columns, counted.c.n_stages).join(counted, counted.c.last_id == Stage.id)
    return session.execute(query.order_by(counted.c.n_stages.desc())).all()


def list_conditions(session: Session, project_id: int, task_hash: str) -> list[tuple[Conditions, int]]:
    """Conditions under which stages of a task were timed, the most frequent first, with their counts."""
    mine = _stages_of(project_id)
    columns = [getattr(Latency, field.name) for field in fields(Conditions)]
    query = (
        select(*columns, func.count().label("n"))
        .select_from(mine)
        .join(Stage, Stage.id == mine.c.stage_id)
        .join(Latency, Latency.stage_id == Stage.id)
        .where(Stage.task_hash == task_hash, Stage.trained)
        .group_by(*columns)
        .order_by(func.count().desc())
    )
    return [(Conditions(*row[:-1]), row.n) for row in session.execute(query)]


def last_change(session: Session) -> tuple[int, int]:
    """What differs after a stage or a latency was recorded, so that points need to be read anew."""
    stage_id, latency_id = session.execute(
        select(select(func.max(Stage.id)).scalar_subquery(), select(func.max(Latency.id)).scalar_subquery())
    ).one()
    return stage_id or 0, latency_id or 0


def list_kinds(session: Session, project_id: int, task_hash: str) -> list[tuple[str, str]]:
    """(family, model) pairs of a task's measured stages."""
    mine = _stages_of(project_id)
    query = select(Stage.family, Stage.model).join(mine, mine.c.stage_id == Stage.id)
    query = query.where(Stage.task_hash == task_hash, Stage.trained)
    return [(row.family, row.model) for row in session.execute(query.distinct())]


def list_candidates(
    session: Session, chosen: PointFilter, axes: Iterable[str], *, as_one: bool = False
) -> dict[str, list[Any]]:
    """What a decision needs of every stage: columns of stage_id, score, size_bytes and `axes`, None: not measured.

    With `as_one` of every recipe: the first stage's id, and the means over the last stage of each seed.
    """
    names = list(dict.fromkeys(("score", "size_bytes", *axes)))
    mine = _stages_of(chosen.project_id, chosen.run_ids)
    columns = [_axis(chosen, name).label(name) for name in names]
    query = select(Stage.id.label("stage_id"), *columns).join(mine, mine.c.stage_id == Stage.id)
    if set(names) & set(TIMED):
        query = query.outerjoin(Latency, Latency.id == _last_latency(chosen))
    query = query.where(*_conditions(chosen))
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
    """Points of which both axes are known: the columns of `_details`, and `n` of points that a row stands for.

    More than `limit` points are thinned: each cell of a grid over the two axes keeps one stage, and every
    stage on the two axes' frontier stays.
    """
    n = thinning.thin(session, _points(chosen, x, y), limit, logs)
    query = _details(chosen).where(Stage.id.in_(list(n))).order_by(Stage.id)
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
    """The same points, those that differ in their seeds as one: its values are means over the seeds.

    A row is that of the recipe's last stage, with what `core.comparison.seeds.merged` makes of all; `stage_id` is the
    first one's. Where a recipe was computed with one seed several times, the last counts.
    """
    n = thinning.thin(session, _recipes(chosen, x, y), limit, logs)
    drawn = list(n)
    some = or_(Stage.id.in_(drawn), Stage.id.in_(_of_the_same_recipes(drawn)))
    query = _details(chosen).where(some, _of_project(chosen), *_conditions(chosen))
    rows = [dict(row) for row in session.execute(query.order_by(Stage.id)).mappings()]
    found = seeds.merged([row for row in rows if row[x] is not None and row[y] is not None], tuple(AXES))
    return [{**row, "n": n[row["stage_id"]]} for row in found if row["stage_id"] in n]


def list_all_points(session: Session, chosen: PointFilter, x: str, y: str) -> list[dict[str, Any]]:
    """The same points without thinning, however many they are, for what is exported."""
    known = _points(chosen, x, y).subquery("known")
    query = _details(chosen).join(known, known.c.stage_id == Stage.id).order_by(Stage.id)
    return [dict(row) for row in session.execute(query).mappings()]


def list_in_time(session: Session, chosen: PointFilter, x: str, y: str) -> dict[str, list[Any]]:
    """Columns stage_id, x, y (as `list_points` has them) and at of all points, in the order of their recording."""
    mine = _stages_of(chosen.project_id, chosen.run_ids)
    axes = [_axis(chosen, name) for name in (x, y)]
    query = select(Stage.id, *axes, Stage.created_at).join(mine, mine.c.stage_id == Stage.id)
    if {x, y} & set(TIMED):
        query = query.join(Latency, Latency.id == _last_latency(chosen))
    query = query.where(*_conditions(chosen), *(axis.is_not(None) for axis in axes))
    rows = session.execute(query.order_by(Stage.created_at, Stage.id)).all()
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return dict(zip(("stage_id", "x", "y", "at"), columns, strict=True))


def list_makers(session: Session, project_id: int, stage_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Of stages: their label, model and the project's first run with each, with its owner's name."""
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
    query = _details(chosen).where(Stage.id.in_(list(stage_ids)), _of_project(chosen), *_conditions(chosen))
    return [dict(row) for row in session.execute(query.order_by(Stage.id)).mappings()]


def list_recipes_by_id(session: Session, chosen: PointFilter, stage_ids: Iterable[int]) -> list[dict[str, Any]]:
    """The recipes of these stages as points, as `list_recipes` has them, over all that was measured of them."""
    asked = list(stage_ids)
    some = or_(Stage.id.in_(asked), Stage.id.in_(_of_the_same_recipes(asked)))
    query = _details(chosen).where(some, _of_project(chosen), *_conditions(chosen)).order_by(Stage.id)
    return seeds.merged([dict(row) for row in session.execute(query).mappings()], tuple(AXES))


def _points(chosen: PointFilter, x: str, y: str) -> Select[*tuple[Any, ...]]:
    """stage_id, x and y of the points of which both axes are known, turned so that less is better."""
    axes = [(name, _axis(chosen, axis), axis) for name, axis in (("x", x), ("y", y))]
    known = [column.is_not(None) for _, column, _ in axes]
    columns = [_falling(column, axis).label(name) for name, column, axis in axes]
    mine = _stages_of(chosen.project_id, chosen.run_ids)
    query = select(Stage.id.label("stage_id"), *columns).join(mine, mine.c.stage_id == Stage.id)
    if {x, y} & set(TIMED):
        query = query.join(Latency, Latency.id == _last_latency(chosen))
    return query.where(*_conditions(chosen), *known)


def _recipes(chosen: PointFilter, x: str, y: str) -> Select[*tuple[Any, ...]]:
    """The same of recipes: the first stage's id, and the means over the last stage of each seed."""
    return _by_recipe(_points(chosen, x, y), ("x", "y"))


def _by_recipe(stages: Select[*tuple[Any, ...]], names: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """The stage_id and the named columns of a query on stages, those that differ in their seeds as one.

    To rank stages within their recipes takes time: only those are that have others in theirs.
    """
    several = select(Stage.recipe_hash).where(Stage.recipe_hash.is_not(None))
    repeated = several.group_by(Stage.recipe_hash).having(func.count() > 1)
    alone = stages.where(or_(Stage.recipe_hash.is_(None), Stage.recipe_hash.not_in(repeated)))
    newest_first = func.row_number().over(partition_by=(Stage.recipe_hash, Stage.seeds_hash), order_by=Stage.id.desc())
    ranked = (
        stages.where(Stage.recipe_hash.in_(repeated))
        .add_columns(Stage.recipe_hash.label("recipe"), newest_first.label("age"))
        .subquery("ranked")
    )
    means = [func.avg(ranked.c[name]).label(name) for name in names]
    merged = select(func.min(ranked.c.stage_id).label("stage_id"), *means).where(ranked.c.age == 1)
    drawn = union_all(alone, merged.group_by(ranked.c.recipe)).subquery("drawn")
    return select(drawn.c.stage_id, *(drawn.c[name] for name in names))


def _of_the_same_recipes(stage_ids: list[int]) -> Select[int]:
    """Ids of the stages whose recipes are those of these stages."""
    known = aliased(Stage)
    return select(Stage.id).join(known, known.recipe_hash == Stage.recipe_hash).where(known.id.in_(stage_ids))


def _falling(column: ColumnElement[Any], axis: str) -> ColumnElement[Any]:
    """The axis turned so that less is better."""
    if axis == "score":
        return case((Stage.higher_is_better, -column), else_=column)
    return column if AXES[axis] else -column


def _axis(chosen: PointFilter, name: str) -> ColumnElement[Any]:
    if name in TIMED:
        return cast("ColumnElement[Any]", TIMED[name]) if chosen.conditions else sql_cast(None, Float)
    if name == "compression_ratio":
        return _compression_ratio(chosen.project_id)
    return cast("ColumnElement[Any]", getattr(Stage, name))


def _details(chosen: PointFilter) -> Select[*tuple[Any, ...]]:
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
        .outerjoin(Latency, Latency.id == _last_latency(chosen))
        .add_columns(
            *(column.label(name) for name, column in TIMED.items()),
            (1.0 / Latency.ratio_high).label("speed_up_low"),
            (1.0 / Latency.ratio_low).label("speed_up_high"),
            Latency.kernel,
            Latency.disturbed,
        )
    )


def _conditions(chosen: PointFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        Stage.task_hash == chosen.task_hash,
        Stage.trained == True,  # noqa: E712
    ]
    wanted: list[ColumnElement[bool]] = [
        column.in_(values)
        for column, values in (
            (Stage.model, chosen.models),
            (Stage.family, chosen.families),
            (Stage.technique, chosen.techniques),
        )
        if values
    ]
    wanted += [Stage.label.icontains(word, autoescape=True) for word in chosen.text.split()]
    if wanted:
        references = select(RunStage.reference_stage_id).where(RunStage.project_id == chosen.project_id)
        conditions.append(or_(and_(*wanted), Stage.id.in_(references)))
    return conditions


def _of_project(chosen: PointFilter) -> ColumnElement[bool]:
    """Whether a stage is of the project, asked stage by stage."""
    mine = exists().where(RunStage.project_id == chosen.project_id, RunStage.stage_id == Stage.id)
    return mine.where(RunStage.run_id.in_(chosen.run_ids)) if chosen.run_ids else mine


def _stages_of(project_id: int, run_ids: tuple[int, ...] = ()) -> Subquery:
    """Ids of a project's stages, to join: half the time of asking stage by stage where nearly all are wanted."""
    mine = select(RunStage.stage_id).where(RunStage.project_id == project_id).distinct()
    return (mine.where(RunStage.run_id.in_(run_ids)) if run_ids else mine).subquery("mine")


def _compression_ratio(project_id: int) -> ColumnElement[Any]:
    """The reference's size over the stage's."""
    reference = aliased(Stage)
    size = (
        select(func.max(reference.size_bytes))
        .join(RunStage, RunStage.reference_stage_id == reference.id)
        .where(RunStage.project_id == project_id, RunStage.stage_id == Stage.id)
        .correlate(Stage)
        .scalar_subquery()
    )
    return sql_cast(size, Float) / Stage.size_bytes


def _last_latency(chosen: PointFilter) -> ColumnElement[Any]:
    """Id of the stage's last latency under the conditions; of none where no conditions were chosen."""
    if chosen.conditions is None:
        return literal(-1)
    alike = aliased(Latency)
    same: list[ColumnElement[bool]] = [alike.stage_id == Stage.id, alike.operating_point_id.is_(None)]
    for name, value in asdict(chosen.conditions).items():
        column = getattr(alike, name)
        same.append(column.is_(None) if value is None else column == value)
    return select(func.max(alike.id)).where(*same).correlate(Stage).scalar_subquery()
