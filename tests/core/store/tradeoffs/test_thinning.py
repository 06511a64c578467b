"""Thinning against a slow, obvious oracle, on stores with many ties."""

import math
import random

import pytest
from sqlalchemy import select

from core.quantities import BY_NAME
from core.store.models import Latency, Stage
from core.store.tradeoffs import queries
from core.store.tradeoffs.filters import PointFilter
from core.store.tradeoffs.thinning import BEYOND, COLUMNS, LINEAR, ROWS, Logs
from tests import factories

PAIRS = (("size_bytes", "score"), ("score", "macs"), ("p50_ms", "score"), ("speed_up", "compression_ratio"))


def drawn_by_the_oracle(points, logs=LINEAR):
    """{id: n} of (id, x, y), less is better: first of each cell, and whom nobody dominates or precedes at its place."""

    def place(value, values, log, n_cells):
        if log:
            value, values = logarithm(value), [logarithm(v) for v in values]
        span = max(values) - min(values)
        return math.floor((value - min(values)) * (n_cells / (span or 1)))

    def logarithm(value):
        return value and math.copysign(math.log(abs(value)) + BEYOND, value)

    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    cells = {}
    for i, x, y in points:
        cells.setdefault((place(x, xs, logs.x, COLUMNS), place(y, ys, logs.y, ROWS)), []).append(i)
    drawn = {min(ids): len(ids) for ids in cells.values()}
    for i, x, y in points:
        beaten = any(a <= x and b <= y and ((a, b) != (x, y) or j < i) for j, a, b in points)
        if not beaten:
            drawn.setdefault(i, 1)
    return drawn


@pytest.mark.parametrize("logs", [LINEAR, Logs(x=True), Logs(x=True, y=True)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_thinned_points_are_those_of_the_oracle(session, seed, logs):
    project_id = factories.fill_store(session, 90, seed)
    chance = random.Random(seed)
    for stage in session.scalars(select(Stage)):
        stage.task_hash, stage.higher_is_better = "0" * 64, seed != 2
        stage.size_bytes, stage.score = chance.randint(1, 400), float(chance.randint(-100, 100))
        stage.macs = 7 if seed else chance.choice((1, 2**40, chance.randrange(2**40)))
    for latency in session.scalars(select(Latency)):
        latency.p50_ms, latency.ratio = chance.choice((0.5, 1.5, chance.random() * 1e-3)), chance.randint(1, 9) / 8
    session.flush()
    conditions = queries.list_conditions(session, PointFilter(project_id, "0" * 64))[0][0]
    chosen = PointFilter(project_id, "0" * 64, conditions=conditions)
    for x, y in PAIRS:
        every = queries.list_points(session, chosen, x, y)
        assert len(every) > 100 and all(point["n"] == 1 for point in every)

        def less(point, axis):
            falls = BY_NAME[axis].better == "less" if axis != "score" else not point["higher_is_better"]
            return point[axis] if falls else -point[axis]

        expected = drawn_by_the_oracle([(p["stage_id"], less(p, x), less(p, y)) for p in every], logs)
        thinned = queries.list_points(session, chosen, x, y, limit=100, logs=logs)
        assert {p["stage_id"]: p["n"] for p in thinned} == expected


def test_the_frontier_stays_where_cells_hold_many(session):
    """One stage far away makes cells so wide that most of the frontier shares them."""
    project_id = factories.fill_store(session, 150)
    chance = random.Random(0)
    stages = session.scalars(select(Stage)).all()
    for stage in stages:
        stage.task_hash, stage.higher_is_better = "0" * 64, False
        stage.size_bytes = chance.randint(1, 4000)
        stage.score = 4e6 / stage.size_bytes**1.2 + 400 * chance.random()  # many on the frontier, in several columns
    stages[-1].size_bytes, stages[-1].score = 60_000, 60_000.0
    session.flush()
    chosen = PointFilter(project_id, "0" * 64)
    every = [(p["stage_id"], p["size_bytes"], p["score"]) for p in queries.list_points(session, chosen)]
    expected = drawn_by_the_oracle(every)
    assert {p["stage_id"]: p["n"] for p in queries.list_points(session, chosen, limit=10)} == expected


def test_up_to_the_limit_nothing_is_thinned(session):
    project_id = factories.fill_store(session, 60)
    task_hash = queries.list_tasks(session, project_id)[0].task_hash
    chosen = PointFilter(project_id, task_hash)
    n = len(queries.list_points(session, chosen))
    session.query(Stage).update({"size_bytes": 5})  # one column of the grid, few cells
    assert len(queries.list_points(session, chosen, limit=n)) == n
    assert len(queries.list_points(session, chosen, limit=n - 1)) < n
