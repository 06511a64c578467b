from sqlalchemy import func, select

from core.measured import Comparison
from core.store import queue, stages
from core.store.models import Latency, RunStage, RunStatus, Stage
from tests import factories


def add(session, key, **changes):
    return stages.add_stage(session, factories.measured(key, **changes), f"{key[:2]}/{key}", 10, "0" * 64)


def attach(session, run, position, stage_id, reference_id=None, comparison=None, reused=False):
    stages.attach_stage(
        session, run.id, position, stage_id, reused=reused, reference_stage_id=reference_id, comparison=comparison
    )


def finish(session, run):
    claimed = queue.claim_next_run(session, None, "cpu", [], 30.0)
    assert claimed.id == run.id
    queue.finish_run(session, run.id, 1, queue.Ended(RunStatus.DONE))


def test_recorded_stage_is_found_as_it_was_measured(session):
    measured = factories.measured("a", scores={"f1": 0.5}, details={"layers": [1, 2]}, peak_memory_bytes=2**40)
    stage_id = stages.add_stage(session, measured, "a/a", 10, "0" * 64)
    found = stages.find_stage(session, "a")
    assert (found.stage_id, found.measured, found.latencies) == (stage_id, measured, [])
    assert stages.find_stage(session, "b") is None


def test_second_record_of_a_stage_leaves_the_first(session):
    assert add(session, "a", score=0.9) == add(session, "a", score=0.1)
    assert stages.find_stage(session, "a").measured.score == 0.9
    assert session.scalar(select(func.count()).select_from(Stage)) == 1


def test_peak_memory_is_the_last_that_was_measured(session):
    add(session, "a", peak_memory_bytes=100, details={"peak memory": {"hardware": "one"}})
    add(session, "a", peak_memory_bytes=200, details={"peak memory": {"hardware": "another"}}, score=0.1)
    add(session, "a", peak_memory_bytes=None, details={})
    found = stages.find_stage(session, "a").measured
    assert (found.peak_memory_bytes, found.details["peak memory"]["hardware"]) == (200, "another")
    assert found.score == factories.measured("a").score


def test_attaching_again_keeps_one_row_with_the_last_comparison(session):
    run = factories.submit(session)
    dense, small = add(session, "dense", compressed=False), add(session, "small")
    attach(session, run, 0, dense, dense)
    for delta in (-0.5, -0.1):
        attach(session, run, 1, small, dense, Comparison(delta, delta - 0.1, delta + 0.1, 0.03))
    rows = stages.list_run_stages(session, run.id)
    assert [(row.RunStage.position, row.Stage.key) for row in rows] == [(0, "dense"), (1, "small")]
    assert (rows[1].RunStage.score_delta, rows[1].RunStage.p_value) == (-0.1, 0.03)
    assert rows[1].RunStage.project_id == run.project_id
    assert session.scalar(select(func.count()).select_from(RunStage)) == 2


def test_latencies_of_a_run_take_the_place_of_its_earlier_ones(session):
    first, second = factories.submit(session), factories.submit(session)
    stage_id = add(session, "a")
    for run in (first, second):
        attach(session, run, 1, stage_id)
    for ms in (5.0, 3.0):
        stages.set_latencies(session, first.id, stage_id, [factories.latency(p50_ms=ms)], None)
    stages.set_latencies(session, second.id, stage_id, [factories.latency(p50_ms=4.0, batch=8)], None)
    assert [row.p50_ms for row in stages.list_latencies(session, [first.id])] == [3.0]
    used = factories.latency(energy_mj=1.5, reference_energy_mj=2.5)
    stages.set_latencies(session, second.id, stage_id, [used], None)
    (row,) = stages.list_latencies(session, [second.id])
    assert (row.energy_mj, row.reference_energy_mj) == (1.5, 2.5)
    assert used in [found for _, found in stages.find_stage(session, "a").latencies]
    assert session.scalar(select(func.count()).select_from(Latency)) == 2


def test_found_stage_brings_the_last_latency_of_each_condition_and_reference(session):
    runs = [factories.submit(session) for _ in range(3)]
    dense, small = add(session, "dense"), add(session, "small")
    for run, ms, reference in zip(runs, (5.0, 3.0, 1.0), (dense, dense, None), strict=True):
        stages.set_latencies(session, run.id, small, [factories.latency(p50_ms=ms)], reference)
    found = stages.find_stage(session, "small").latencies
    assert {key: row.p50_ms for key, row in found} == {"dense": 3.0, None: 1.0}
    assert found[0][1] == factories.latency(p50_ms=found[0][1].p50_ms)


def test_run_reference_names_the_last_stage_of_a_finished_run_only(session):
    run = factories.submit(session)
    dense, small = add(session, "dense"), add(session, "small")
    attach(session, run, 0, dense, dense)
    attach(session, run, 1, small, dense)
    assert stages.find_run_stage(session, run.id) is None
    finish(session, run)
    assert stages.find_run_stage(session, run.id) == ("small", "sm/small")
    assert stages.find_run_stage(session, run.id, 0) == ("dense", "de/dense")
    assert stages.find_reference_key(session, run.id) == "dense"


def test_operating_points_are_updated_in_place(session):
    stage_id = add(session, "a")
    row = {"name": "exit_threshold", "value": 0.5, "score": 0.8, "score_low": 0.7, "score_high": 0.9, "macs": 10}
    stages.add_operating_points(session, stage_id, [row])
    stages.add_operating_points(session, stage_id, [row | {"score": 0.85}])
    assert [point.score for point in stages.list_operating_points(session, [stage_id])] == [0.85]


def repeated(session, stage_id):
    stage = session.get_one(Stage, stage_id, populate_existing=True)
    return stage.recipe_hash, stage.seeds_hash


def test_stages_of_one_recipe_say_so_and_differ_in_their_seeds(session):
    ids = {}
    for seed in (0, 1):
        run = factories.submit(session, seed=seed)
        for position in (0, 1, 2):
            ids[seed, position] = add(session, f"{seed}{position}")
            attach(session, run, position, ids[seed, position])
    for position in (0, 1, 2):
        (recipe, zero), (other, one) = (repeated(session, ids[seed, position]) for seed in (0, 1))
        assert recipe == other is not None
        assert zero != one
    assert len({repeated(session, stage_id)[0] for stage_id in ids.values()}) == 3


def test_a_reused_stage_keeps_what_its_first_run_said(session):
    first, second = factories.submit(session), factories.submit(session, recipe=["cast"])
    stage_id = add(session, "a")
    attach(session, second, -1, stage_id)
    assert repeated(session, stage_id) == (None, None)  # a reference alone
    attach(session, first, 1, stage_id)
    said = repeated(session, stage_id)
    attach(session, second, 1, stage_id, reused=True)
    assert repeated(session, stage_id) == said != (None, None)


def test_runs_from_runs_of_one_recipe_repeat_one_recipe(session):
    ids = []
    for seed in (0, 1):
        before = factories.submit(session, seed=seed)
        attach(session, before, 1, add(session, f"trained {seed}"))
        finish(session, before)
        after = factories.submit(session, model=f"run:{before.id}", recipe=["cast"])
        ids.append(add(session, f"cast {seed}"))
        attach(session, after, 1, ids[-1])
        finish(session, after)
    (recipe, zero), (other, one) = (repeated(session, stage_id) for stage_id in ids)
    assert recipe == other
    assert zero != one
