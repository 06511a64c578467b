"""What goes wrong with workers."""

import signal
from collections import Counter

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select

from core.store.models import Latency, Point, Run, RunStage, RunStatus, Stage, Worker
from tests.faults.conftest import gone

N_STEPS = 100


def started(cluster, run_id, key):
    """Whether the run has begun to compute this stage."""
    return any(message.startswith(f"{key} from") for _, _, message in cluster.log(run_id))


def assert_one_result(cluster, run_id):
    """Three stages, each once, and curves without a gap or a doubled point."""
    assert cluster.rows(select(RunStage.position).where(RunStage.run_id == run_id).order_by(RunStage.position)) == [
        (0,),
        (1,),
        (2,),
    ]
    assert sorted(row.key for row in cluster.rows(select(Stage.key))) == ["first", "second", "source"]
    assert len(cluster.rows(select(Latency.id).where(Latency.run_id == run_id))) == 3
    for curve in ("1/loss", "2/loss"):
        steps = cluster.rows(select(Point.step).where(Point.run_id == run_id, Point.curve == curve))
        assert sorted(row.step for row in steps) == list(range(N_STEPS))


def test_killed_worker_takes_its_child_along_and_the_run_resumes_elsewhere(cluster):
    workers = {worker.pid: worker for worker in (cluster.start_worker(), cluster.start_worker())}
    run_id = cluster.submit(f"train {N_STEPS}")
    child = cluster.wait_for_child(run_id)
    cluster.wait(lambda: started(cluster, run_id, "second"), lambda: cluster.log(run_id))
    [holder] = cluster.rows(select(Worker.name).join(Run, Run.worker_id == Worker.id).where(Run.id == run_id))
    workers[int(holder.name.rpartition("-")[2])].send_signal(signal.SIGKILL)
    cluster.wait(lambda: gone(child))
    run = cluster.wait_for(run_id, RunStatus.DONE)
    assert run.attempt == 2
    assert_one_result(cluster, run_id)
    begun = Counter(message for _, _, message in cluster.log(run_id) if " from " in message)
    assert begun["first from 0"] == 1  # the recorded stage was not computed again
    assert any("stopped responding" in message for _, _, message in cluster.log(run_id))


def test_stopped_worker_gives_its_run_back_at_its_place(cluster):
    first = cluster.start_worker()
    run_id = cluster.submit(f"train {N_STEPS}")
    cluster.wait(lambda: cluster.run(run_id).progress > 0.4, lambda: cluster.log(run_id))
    first.send_signal(signal.SIGTERM)
    first.wait(60)
    run = cluster.run(run_id)
    assert (run.status, run.attempts_left) == (RunStatus.QUEUED, 3)
    [worker] = cluster.rows(select(Worker.stopped_at))
    assert worker.stopped_at is not None
    cluster.start_worker()
    run = cluster.wait_for(run_id, RunStatus.DONE)
    assert_one_result(cluster, run_id)
    resumed = [message for attempt, _, message in cluster.log(run_id) if attempt == 2 and " from " in message]
    assert not resumed[0].endswith(" from 0")


def test_queued_runs_are_executed_though_redis_was_stopped_and_lost_its_data(cluster):
    cluster.start_worker()
    cluster.wait_for(cluster.submit("sleep 0.1"), RunStatus.DONE)
    cluster.stop_redis()
    without = [cluster.submit("sleep 0.1", wake=False) for _ in range(2)]
    with pytest.raises(OperationalError):
        cluster.wake()
    for run_id in without:
        cluster.wait_for(run_id, RunStatus.DONE)
    cluster.start_redis()
    cluster.wait_for(cluster.submit("sleep 0.1"), RunStatus.DONE)


def test_worker_starts_and_stops_without_redis(cluster):
    cluster.stop_redis()
    worker = cluster.start_worker()
    cluster.wait_for(cluster.submit("sleep 0.1", wake=False), RunStatus.DONE)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) is not None


def test_two_workers_execute_each_of_fifty_runs_once(any_cluster):
    cluster = any_cluster
    workers = [cluster.start_worker() for _ in range(2)]
    run_ids = [cluster.submit("sleep 0", wake=index % 10 == 0) for index in range(50)]
    for run_id in run_ids:
        cluster.wait_for(run_id, RunStatus.DONE)
    for run_id in run_ids:
        log = cluster.log(run_id)
        assert sum(message.startswith("begun by") for _, _, message in log) == 1
        assert {attempt for attempt, _, _ in log} == {1}
    assert len({cluster.run(run_id).worker_id for run_id in run_ids}) == len(workers)


def test_runs_with_a_common_stage_compute_it_once(cluster):
    for _ in range(2):
        cluster.start_worker()
    run_ids = [cluster.submit(f"train {N_STEPS}") for _ in range(2)]
    for run_id in run_ids:
        run = cluster.wait_for(run_id, RunStatus.DONE)
        assert run.attempts_left == 2
    begun = Counter(
        message for run_id in run_ids for _, _, message in cluster.log(run_id) if message.endswith(" from 0")
    )
    assert begun == {"first from 0": 1, "second from 0": 1}
