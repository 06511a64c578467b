import hashlib
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from core.store import listing, stages
from core.store.models import Latency, RunStage, Stage
from core.store.tradeoffs import queries
from core.store.tradeoffs.filters import PointFilter
from tests import factories

N = 120


@pytest.fixture
def filled(session):
    project_id = factories.fill_store(session, N)
    task = queries.list_tasks(session, project_id)[0]
    return session, project_id, task.task_hash


def stages_of(session, task_hash):
    return session.scalars(select(Stage).where(Stage.task_hash == task_hash).order_by(Stage.id)).all()


def test_tasks_are_counted_once_a_stage(filled):
    session, project_id, _ = filled
    tasks = queries.list_tasks(session, project_id)
    assert {task.task: task.n_stages for task in tasks} == {
        task.task: len(stages_of(session, task.task_hash)) for task in tasks
    }
    assert [t.n_stages for t in tasks] == sorted((t.n_stages for t in tasks), reverse=True)


def test_every_stage_of_the_task_is_one_point(filled):
    session, project_id, task_hash = filled
    points = queries.list_points(session, PointFilter(project_id, task_hash))
    assert [(p["stage_id"], p["size_bytes"], p["n"]) for p in points] == [
        (stage.id, stage.size_bytes, 1) for stage in stages_of(session, task_hash)
    ]


def test_shared_stage_leads_to_its_last_run(filled):
    session, project_id, task_hash = filled
    for point in queries.list_points(session, PointFilter(project_id, task_hash)):
        attached = session.scalars(select(RunStage).where(RunStage.stage_id == point["stage_id"])).all()
        assert (point["run_id"], point["n_runs"]) == (max(a.run_id for a in attached), len(attached))


def test_latency_is_of_the_chosen_conditions_only(filled):
    session, project_id, task_hash = filled
    conditions = {c.batch: c for c, _ in queries.list_conditions(session, PointFilter(project_id, task_hash))}
    assert set(conditions) == {1, 64}
    chosen = PointFilter(project_id, task_hash, conditions=conditions[64])
    points = queries.list_points(session, chosen, "size_bytes", "speed_up")
    assert len(points) == len(stages_of(session, task_hash))
    for point in points:
        row = session.scalars(select(Latency).where(Latency.stage_id == point["stage_id"], Latency.batch == 64)).one()
        assert (point["p50_ms"], point["speed_up"]) == (row.p50_ms, pytest.approx(1 / row.ratio))


def test_without_conditions_there_are_no_latencies(filled):
    session, project_id, task_hash = filled
    assert queries.list_points(session, PointFilter(project_id, task_hash), "p50_ms", "score") == []
    assert queries.list_points(session, PointFilter(project_id, task_hash))[0]["p50_ms"] is None


def test_compression_ratio_is_against_the_reference(filled):
    session, project_id, task_hash = filled
    points = queries.list_points(session, PointFilter(project_id, task_hash), "compression_ratio", "score")
    assert points
    for point in points:
        reference = session.get(Stage, point["reference_stage_id"])
        assert point["compression_ratio"] == pytest.approx(reference.size_bytes / point["size_bytes"])


def test_compression_ratio_is_against_the_file_that_the_reference_was_loaded_from(filled):
    session, project_id, task_hash = filled
    references = select(RunStage.reference_stage_id)
    session.execute(update(Stage).where(Stage.id.in_(references)).values(checkpoint_bytes=Stage.size_bytes - 1000))
    points = queries.list_points(session, PointFilter(project_id, task_hash), "compression_ratio", "score")
    for point in points:
        reference = session.get(Stage, point["reference_stage_id"])
        assert point["compression_ratio"] == pytest.approx(reference.checkpoint_bytes / point["size_bytes"])
    last = listing.list_last_stages(session, [point["run_id"] for point in points])
    for row in last:
        place = session.get(RunStage, (row.run_id, row.position))
        assert row.reference_size_bytes == session.get(Stage, place.reference_stage_id).checkpoint_bytes


def test_filters_leave_their_stages_and_the_references(filled):
    session, project_id, task_hash = filled
    every = stages_of(session, task_hash)
    references = {p["reference_stage_id"] for p in queries.list_points(session, PointFilter(project_id, task_hash))}
    for name, value in (("models", "builtin:vit"), ("families", "quantization"), ("techniques", "svd")):
        column = {"models": "model", "families": "family", "techniques": "technique"}[name]
        points = queries.list_points(session, PointFilter(project_id, task_hash, **{name: (value,)}))
        assert [p["stage_id"] for p in points] == [
            s.id for s in every if getattr(s, column) == value or s.id in references
        ]
    run_id = session.scalars(
        select(RunStage.run_id).join(Stage, Stage.id == RunStage.stage_id).where(Stage.task_hash == task_hash).limit(1)
    ).one()
    mine = set(session.scalars(select(RunStage.stage_id).where(RunStage.run_id == run_id)))
    points = queries.list_points(session, PointFilter(project_id, task_hash, run_ids=(run_id,)))
    assert {p["stage_id"] for p in points} == mine
    assert queries.list_points(session, PointFilter(project_id + 1, task_hash)) == []


def test_thinned_points_keep_the_frontier_and_stand_for_all(filled):
    session, project_id, task_hash = filled
    every = stages_of(session, task_hash)
    sign = -1.0 if every[0].higher_is_better else 1.0
    costs = {stage.id: (stage.size_bytes, sign * stage.score) for stage in every}
    frontier = {
        i for i, (a, b) in costs.items() if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in costs.values())
    }
    points = queries.list_points(session, PointFilter(project_id, task_hash), limit=10)
    drawn = {p["stage_id"]: p["n"] for p in points}
    assert frontier <= set(drawn)
    assert len(drawn) < len(every)
    cells = sum(drawn.values())
    assert len(every) <= cells <= len(every) + len(frontier)  # a frontier point that is no cell's own adds itself


def test_untrained_stages_are_no_points(session):
    run = factories.submit(session)
    for key, trained in (("a", True), ("b", False)):
        stage_id = stages.add_stage(session, factories.measured(key, trained=trained), key, 1, "0")
        stages.attach_stage(
            session, run.id, int(trained), stage_id, reused=False, reference_stage_id=None, comparison=None
        )
    points = queries.list_points(session, PointFilter(run.project_id, "0" * 64))
    assert [p["n_runs"] for p in points] == [1]
    assert queries.list_points_by_id(session, PointFilter(run.project_id, "0" * 64), [stage_id]) == []


def test_kinds_are_what_can_be_filtered_by(filled):
    session, project_id, task_hash = filled
    kinds = queries.list_kinds(session, project_id, task_hash)
    assert sorted(kinds) == sorted({(stage.family, stage.model) for stage in stages_of(session, task_hash)})


def test_words_of_the_label_leave_their_stages_and_the_references(filled):
    session, project_id, task_hash = filled
    points = queries.list_points(session, PointFilter(project_id, task_hash, text="BITS 8"))
    references = {p["reference_stage_id"] for p in queries.list_points(session, PointFilter(project_id, task_hash))}
    expected = {s.id for s in stages_of(session, task_hash) if "bits" in s.label and "8" in s.label}
    assert expected and {p["stage_id"] for p in points} == expected | references


def test_candidates_are_all_stages_with_what_is_asked_of_them(filled):
    session, project_id, task_hash = filled
    [conditions] = [c for c, _ in queries.list_conditions(session, PointFilter(project_id, task_hash)) if c.batch == 1]
    session.execute(delete(Latency).where(Latency.stage_id == stages_of(session, task_hash)[1].id))
    for chosen in (
        PointFilter(project_id, task_hash, conditions=conditions),
        PointFilter(project_id, task_hash, conditions=conditions, families=("quantization",), text="rtn"),
        PointFilter(project_id, task_hash),
    ):
        columns = queries.list_candidates(session, chosen, ("p50_ms", "size_bytes", "compression_ratio"))
        points = queries.list_points(session, chosen)
        assert list(columns) == ["stage_id", "score", "size_bytes", "p50_ms", "compression_ratio"]
        assert len(points) > 5
        for name, column in columns.items():
            assert column == [point[name] for point in points]
    assert queries.list_candidates(session, PointFilter(project_id + 1, task_hash), ()) == {
        "stage_id": [], "score": [], "size_bytes": []
    }  # fmt: skip


def test_recorded_reused_and_lost_stages_change_the_mark(filled):
    session, project_id, _ = filled
    seen = [queries.find_last_change(session, project_id)]
    factories.fill_store(session, 3, seed=5)
    seen.append(queries.find_last_change(session, project_id))
    known = session.scalars(select(RunStage).where(RunStage.project_id == project_id)).first()
    run = factories.submit(session)
    session.add(RunStage(run_id=run.id, position=1, stage_id=known.stage_id, project_id=project_id, reused=True))
    session.flush()
    seen.append(queries.find_last_change(session, project_id))
    session.execute(delete(RunStage).where(RunStage.run_id == known.run_id))
    seen.append(queries.find_last_change(session, project_id))
    session.execute(delete(Latency).where(Latency.id == session.scalar(select(func.max(Latency.id)))))
    seen.append(queries.find_last_change(session, project_id))
    assert len(set(seen)) == len(seen)


def seeded(session, n_runs=90):
    project_id = factories.fill_store(session, n_runs, n_seeds=3)
    return project_id, hashlib.sha256(b"builtin:digits").hexdigest()


def by_recipe(session, task_hash):
    """Stages by recipe and seed, the last of each, as slow as can be."""
    found = {}
    for stage in stages_of(session, task_hash):
        found.setdefault(stage.recipe_hash, {})[stage.seeds_hash] = stage
    return [list(of_seed.values()) for of_seed in found.values()]


@pytest.mark.parametrize("limit", [4000, 10])
def test_stages_that_differ_in_their_seeds_are_one_point(session, limit):
    project_id, task_hash = seeded(session)
    recipes = {min(s.id for s in found): found for found in by_recipe(session, task_hash)}
    points = queries.list_recipes(session, PointFilter(project_id, task_hash), limit=limit)
    assert 2 < len(points) <= len(recipes)
    assert {p["n_seeds"] for p in points} >= {2, 3}
    for p in points:
        of_seeds = recipes[p["stage_id"]]
        assert p["n_seeds"] == len(of_seeds)
        assert p["score"] == pytest.approx(sum(s.score for s in of_seeds) / len(of_seeds))
        assert p["size_bytes"] == pytest.approx(sum(s.size_bytes for s in of_seeds) / len(of_seeds))
    if limit == 4000:
        assert {p["stage_id"] for p in points} == set(recipes)
        assert all(p["n"] == 1 for p in points)
    else:
        assert sum(p["n"] for p in points) >= len(recipes) >= len(points)


@pytest.mark.parametrize("as_one", [False, True])
def test_recent_points_are_added_to_those_read_before(session, as_one):
    project_id, task_hash = seeded(session)
    some = stages_of(session, task_hash)
    some[-1].recipe_hash, some[-1].seeds_hash = some[0].recipe_hash, some[0].seeds_hash  # a seed that was done again
    session.flush()
    chosen = PointFilter(project_id, task_hash)
    read = queries.list_recipes if as_one else queries.list_points
    whole = read(session, chosen)
    for upto in (0, *(stage.id for stage in some[:: len(some) // 4]), some[-1].id):
        settled = read(session, replace(chosen, upto=upto))
        found = queries.list_with_recent(session, settled, chosen, "size_bytes", "score", upto=upto, as_one=as_one)
        assert found == whole
    assert any(row["reference_stage_id"] != row["stage_id"] for row in whole)


def test_recent_points_are_never_thinned_out(session):
    project_id, task_hash = seeded(session)
    some = stages_of(session, task_hash)
    upto, chosen = some[len(some) // 2].id, PointFilter(project_id, task_hash)
    settled = queries.list_points(session, replace(chosen, upto=upto), limit=10)
    found = queries.list_with_recent(session, settled, chosen, "size_bytes", "score", upto=upto, as_one=False)
    assert {row["stage_id"] for row in found} == {
        *(row["stage_id"] for row in settled), *(stage.id for stage in some if stage.id > upto)
    }  # fmt: skip


def test_settled_stages_do_not_change_by_what_is_recorded_later(session):
    project_id = factories.fill_store(session, 2 * queries.RECENT)
    upto = queries.find_last_settled(session)
    newest = session.scalar(select(func.max(Stage.id)))
    assert newest - queries.RECENT < upto <= newest and upto % queries.RECENT == 0
    task_hash = queries.list_tasks(session, project_id)[0].task_hash
    mark = queries.find_last_change(session, project_id, upto=upto)
    chosen = PointFilter(project_id, task_hash, upto=upto)
    conditions, tasks = queries.list_conditions(session, chosen), queries.list_tasks(session, project_id, upto=upto)
    factories.fill_store(session, 3, seed=5)
    assert queries.find_last_change(session, project_id, upto=upto) == mark
    assert queries.list_conditions(session, chosen) == conditions
    assert queries.list_tasks(session, project_id, upto=upto) == tasks
    after = {task.task: task.n_stages for task in queries.list_tasks(session, project_id, after=upto)}
    before = {task.task: task.n_stages for task in tasks}
    assert after and {task.task: task.n_stages for task in queries.list_tasks(session, project_id)} == {
        name: before.get(name, 0) + after.get(name, 0) for name in {*before, *after}
    }
    session.execute(delete(Latency).where(Latency.stage_id == upto))
    session.execute(delete(RunStage).where(RunStage.stage_id == upto))
    assert queries.find_last_change(session, project_id, upto=upto) != mark


def test_candidates_are_recipes_with_their_means(session):
    project_id, task_hash = seeded(session)
    [conditions] = [c for c, _ in queries.list_conditions(session, PointFilter(project_id, task_hash)) if c.batch == 1]
    some = stages_of(session, task_hash)
    session.execute(delete(Latency).where(Latency.stage_id.in_([some[3].id, some[4].id])))
    chosen = PointFilter(project_id, task_hash, conditions=conditions)
    columns = queries.list_candidates(session, chosen, ("p50_ms", "compression_ratio"), as_one=True)
    recipes = {min(s.id for s in found): found for found in by_recipe(session, task_hash)}
    assert columns["stage_id"] == sorted(recipes)
    points = {p["stage_id"]: p for p in queries.list_recipes_by_id(session, chosen, columns["stage_id"])}
    assert len(points) == len(recipes) and {len(found) for found in recipes.values()} >= {2, 3}
    for at, stage_id in enumerate(columns["stage_id"]):
        of_seeds = recipes[stage_id]
        assert columns["score"][at] == pytest.approx(sum(s.score for s in of_seeds) / len(of_seeds))
        for name in ("score", "size_bytes", "p50_ms", "compression_ratio"):
            told = points[stage_id][name]
            assert (columns[name][at] is None) == (told is None)
            assert told is None or float(columns[name][at]) == pytest.approx(told)


def test_a_recipe_is_found_by_any_of_its_stages(session):
    project_id, task_hash = seeded(session)
    chosen = PointFilter(project_id, task_hash)
    [found, *_] = [found for found in by_recipe(session, task_hash) if len(found) == 3]
    [point] = queries.list_recipes_by_id(session, chosen, [found[1].id])
    assert (point["n_seeds"], sorted(point["stage_ids"])) == (3, sorted(s.id for s in found))
    elsewhere = PointFilter(project_id + 1, task_hash)
    assert queries.list_recipes_by_id(session, elsewhere, [found[1].id]) == []


def test_a_run_that_is_reused_or_done_again_is_counted_once(session):
    ids = {}
    for name, seed in (("first", 0), ("other seed", 1), ("again", 0)):
        run = factories.submit(session, seed=seed)
        measured = factories.measured(name, score={"first": 10.0, "other seed": 94.0, "again": 96.0}[name])
        ids[name] = (run.id, stages.add_stage(session, measured, name, 1, "0"))
    sharing = factories.submit(session, seed=1)
    for run_id, stage_id in (*ids.values(), (sharing.id, ids["other seed"][1])):
        stages.attach_stage(session, run_id, 1, stage_id, reused=False, reference_stage_id=None, comparison=None)
    [point] = queries.list_recipes(session, PointFilter(run.project_id, "0" * 64))
    assert (point["score"], point["n_seeds"]) == (95.0, 2)
    assert point["runs"] == f"{sharing.id}, {ids['again'][0]}"


def test_filters_hold_for_every_seed(session):
    project_id, task_hash = seeded(session)
    chosen = PointFilter(project_id, task_hash, families=("pruning",))
    assert queries.list_recipes(session, chosen, "p50_ms") == []  # without conditions no latency is known
    [conditions] = [c for c, _ in queries.list_conditions(session, PointFilter(project_id, task_hash)) if c.batch == 1]
    chosen = PointFilter(project_id, task_hash, families=("pruning",), conditions=conditions)
    points = queries.list_recipes(session, chosen, "p50_ms")
    assert {p["family"] for p in points} == {"pruning", "training"}
    assert all(p["p50_ms"] is not None for p in points)


def test_points_come_in_the_order_of_time_with_those_who_made_them(filled):
    session, project_id, task_hash = filled
    first, last = stages_of(session, task_hash)[0], stages_of(session, task_hash)[-1]
    first.created_at, last.created_at = last.created_at + 1, 1.0
    session.flush()
    columns = queries.list_in_time(session, PointFilter(project_id, task_hash), "size_bytes", "score")
    assert (columns["stage_id"][0], columns["stage_id"][-1]) == (last.id, first.id)
    assert columns["at"] == sorted(columns["at"])
    assert (columns["x"][0], columns["y"][0]) == (last.size_bytes, last.score)
    assert len(columns["stage_id"]) == len(stages_of(session, task_hash))
    makers = queries.list_makers(session, project_id, [first.id])
    runs = session.scalars(select(RunStage.run_id).where(RunStage.stage_id == first.id)).all()
    assert (makers[first.id]["run_id"], makers[first.id]["owner"]) == (min(runs), "local")
    assert queries.list_in_time(session, PointFilter(project_id + 1, task_hash), "macs", "score")["x"] == []
