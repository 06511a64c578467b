"""Which measured stages are points of a trade-off chart, and the SQL that chooses them."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, or_, select

from core.store.models import RunStage, Stage


@dataclass(frozen=True)
class Conditions:
    """The conditions of a latency; only equal ones share an axis."""

    hardware: str
    runtime: str
    threads: int
    batch: int
    length: int | None
    phase: str


@dataclass(frozen=True)
class PointFilter:
    """Which stages are points: of one project and one task (scores of two tasks share no axis).

    References are kept whatever models, families, techniques or search words are chosen.
    """

    project_id: int
    task_hash: str
    models: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    text: str = ""  # anywhere in the stage's label
    run_ids: tuple[int, ...] = ()
    conditions: Conditions | None = None  # without one, latencies are empty
    after: int = 0  # only stages with larger ids
    upto: int | None = None  # only stages with ids up to this one


def is_chosen(chosen: PointFilter) -> list[ColumnElement[bool]]:
    """The SQL condition of chosen stages."""
    of_task = (Stage.task_hash == chosen.task_hash, Stage.trained.is_(True))
    return [*of_task, *is_between(chosen.after, chosen.upto), is_of_project(chosen), *is_wanted(chosen)]


def is_between(after: int, upto: int | None) -> list[ColumnElement[bool]]:
    """Whether a stage was recorded between the two."""
    bounds = [Stage.id > after] if after else []
    return bounds if upto is None else [*bounds, Stage.id <= upto]


def is_wanted(chosen: PointFilter) -> list[ColumnElement[bool]]:
    """The SQL condition of the filters for models, families, techniques and search words."""
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
    if not wanted:
        return []
    references = select(RunStage.reference_stage_id).where(RunStage.project_id == chosen.project_id)
    return [or_(and_(*wanted), Stage.id.in_(references))]


def is_of_project(chosen: PointFilter) -> ColumnElement[bool]:
    """Whether a run of the project has the stage."""
    mine = exists().where(RunStage.project_id == chosen.project_id, RunStage.stage_id == Stage.id)
    return mine.where(RunStage.run_id.in_(chosen.run_ids)) if chosen.run_ids else mine
