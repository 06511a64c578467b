"""What is read of the points of the trade-offs: by the page, by reports and for exports.

Of very many points those up to the last multiple of 128 stages are kept (`_load_settled`), the others are read each
time. Returns plain data.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pandas as pd

from app.queries.cache import LIVE, SLOW, cached
from core.analysis.decision.choice import Decision, decide
from core.analysis.decision.limits import Limit
from core.store.engine import read_session
from core.store.tradeoffs import queries
from core.store.tradeoffs.filters import Conditions, PointFilter
from core.store.tradeoffs.thinning import Logs

KEPT = 600  # seconds: data that is reloaded as soon as it changes


@cached(ttl=LIVE)
def _load_settled(project_id: int) -> tuple[int, tuple[int, ...]]:
    """The last stage up to which points are cached, and a value that changes when those points do."""
    with read_session() as s:
        upto = queries.find_last_settled(s)
        return upto, queries.find_last_change(s, project_id, upto=upto)


def load_tasks(project_id: int) -> pd.DataFrame:
    """Tasks with measured stages, most used first: task, task_hash, score_name, score_unit, higher_is_better."""
    upto, change = _load_settled(project_id)
    settled = _load_tasks(project_id, upto, change)
    with read_session() as s:
        recent = [row._asdict() for row in queries.list_tasks(s, project_id, after=upto)]
    found = pd.DataFrame([*recent, *settled])
    if found.empty:
        return found
    by_task = found.groupby("task_hash", sort=False)
    counted = by_task.first().assign(n_stages=by_task["n_stages"].sum())
    return counted.sort_values("n_stages", ascending=False, kind="stable").reset_index()


@cached(ttl=KEPT, max_entries=20)
def _load_tasks(project_id: int, upto: int, last_change: tuple[int, ...]) -> list[dict[str, Any]]:
    with read_session() as s:
        return [row._asdict() for row in queries.list_tasks(s, project_id, upto=upto)]


def load_conditions(project_id: int, task_hash: str) -> list[tuple[Conditions, int]]:
    """The latency conditions of a task's stages, most frequent first, with counts."""
    chosen = PointFilter(project_id, task_hash)
    upto, change = _load_settled(project_id)
    settled = _load_conditions(replace(chosen, upto=upto), change)
    with read_session() as s:
        recent = queries.list_conditions(s, replace(chosen, after=upto))
    counts = Counter(dict(settled))
    counts.update(dict(recent))
    return counts.most_common()


@cached(ttl=KEPT, max_entries=100)
def _load_conditions(chosen: PointFilter, last_change: tuple[int, ...]) -> list[tuple[Conditions, int]]:
    with read_session() as s:
        return queries.list_conditions(s, chosen)


def read_all_points(chosen: PointFilter, x: str, y: str) -> pd.DataFrame:
    """All points of the trade-off chart, without thinning; not cached."""
    with read_session() as s:
        return pd.DataFrame(queries.list_all_points(s, chosen, x, y))


def load_points(chosen: PointFilter, x: str, y: str, logs: Logs, *, as_one: bool) -> pd.DataFrame:
    """Points of the trade-off chart; if there are many, thinned in SQL (a row stands for `n` of them).

    With `as_one` the stages that differ in their seeds only are one point.
    """
    upto, change = _load_settled(chosen.project_id)
    settled = _load_points(replace(chosen, upto=upto), x, y, logs, as_one, change)
    with read_session() as s:
        return pd.DataFrame(queries.list_with_recent(s, settled, chosen, x, y, upto=upto, as_one=as_one))


@cached(ttl=KEPT, max_entries=100)
def _load_points(
    chosen: PointFilter, x: str, y: str, logs: Logs, as_one: bool, last_change: tuple[int, ...]
) -> list[dict[str, Any]]:
    read = queries.list_recipes if as_one else queries.list_points
    with read_session() as s:
        return read(s, chosen, x, y, logs=logs)


def load_history(chosen: PointFilter, x: str, y: str) -> pd.DataFrame:
    """The points that match the filter in order of recording: stage_id, x, y, at."""
    with read_session() as s:
        return _load_history(chosen, x, y, queries.find_last_change(s, chosen.project_id))


@cached(ttl=KEPT, max_entries=20)
def _load_history(chosen: PointFilter, x: str, y: str, last_change: tuple[int, ...]) -> pd.DataFrame:
    with read_session() as s:
        return pd.DataFrame(queries.list_in_time(s, chosen, x, y))


@cached(ttl=SLOW)
def load_makers(project_id: int, stage_ids: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    """Label, model, run_id and owner of stages, from the project's first run with each."""
    with read_session() as s:
        return queries.list_makers(s, project_id, stage_ids)


@cached(ttl=SLOW)
def load_kinds(project_id: int, task_hash: str) -> list[tuple[str, str]]:
    """(family, model) pairs of a task's measured stages."""
    with read_session() as s:
        return queries.list_kinds(s, project_id, task_hash)


@cached(ttl=LIVE)
def load_decision(
    chosen: PointFilter,
    limits: tuple[Limit, ...],
    weights: dict[str, float],
    higher_is_better: bool,
    *,
    as_one: bool,
) -> tuple[Decision, dict[int, dict[str, Any]], dict[str, Any] | None]:
    """The decision, the points that it refers to by index, and the best one's reference.

    With `as_one` the stages that differ in their seeds only are judged by their means, as one point.
    """
    axes = tuple({limit.quantity for limit in limits} | set(weights))
    read = queries.list_recipes_by_id if as_one else queries.list_points_by_id
    with read_session() as s:
        columns = _load_candidates(chosen, tuple(sorted(axes)), as_one, queries.find_last_change(s, chosen.project_id))
        decision = decide(columns, limits, weights, higher_is_better=higher_is_better)
        ids = {at: columns["stage_id"][at] for at in decision.named()}
        points = {row["stage_id"]: row for row in read(s, chosen, ids.values())}
        named = {at: points[stage_id] for at, stage_id in ids.items()}
        reference_id = decision.best is not None and named[decision.best]["reference_stage_id"]
        found = read(s, chosen, [reference_id]) if reference_id else []
    return decision, named, found[0] if found else None


@cached(ttl=KEPT, max_entries=100)
def _load_candidates(
    chosen: PointFilter, axes: tuple[str, ...], as_one: bool, last_change: tuple[int, ...]
) -> dict[str, list[Any]]:
    with read_session() as s:
        return queries.list_candidates(s, chosen, axes, as_one=as_one)
