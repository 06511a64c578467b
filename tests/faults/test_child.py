"""What goes wrong in a run's own process."""

import signal

import pytest
from sqlalchemy import select

from core.store import engine, queue
from core.store.clock import now
from core.store.models import FailureClass, RunStatus
from tests.faults.conftest import gone, sqlite_cluster

ENDED = (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)


@pytest.fixture(scope="module")
def worked():
    """One worker, which every one of these runs must leave alive."""
    with sqlite_cluster() as cluster:
        worker = cluster.start_worker()
        yield cluster
        assert worker.poll() is None


def test_killed_child_is_one_failed_run_and_the_worker_goes_on(worked):
    run_id = worked.submit("sleep 100")
    child = worked.wait_for_child(run_id)
    child.send_signal(signal.SIGKILL)
    run = worked.wait_for(run_id, *ENDED)
    assert (run.status, run.failure) == (RunStatus.FAILED, FailureClass.KILLED)
    log = worked.log(run_id)
    assert (1, "output", f"pid {child.pid}") in log
    assert any(level == "error" and "SIGKILL" in message for _, level, message in log)
    assert worked.wait_for(worked.submit("sleep 0.1"), *ENDED).status == RunStatus.DONE


def test_crash_and_exception_are_the_techniques_failures(worked):
    crashed, raised = worked.submit("crash"), worked.submit("fail the matrix is singular")
    run = worked.wait_for(crashed, *ENDED)
    assert (run.status, run.failure) == (RunStatus.FAILED, FailureClass.TECHNIQUE)
    assert "SIGSEGV" in run.failure_message
    run = worked.wait_for(raised, *ENDED)
    assert (run.failure, run.failure_message) == (FailureClass.TECHNIQUE, "the matrix is singular")
    assert any("Traceback" in message for _, _, message in worked.log(raised))


def test_memory_beyond_the_limit_ends_the_run_and_nothing_else(worked):
    hoarding = worked.submit("hoard", limits={"memory_gb": 0.5})
    reaching = worked.submit("overreach")
    run = worked.wait_for(hoarding, *ENDED)
    assert (run.status, run.failure) == (RunStatus.FAILED, FailureClass.OUT_OF_MEMORY)
    run = worked.wait_for(reaching, *ENDED)
    assert (run.status, run.failure) == (RunStatus.FAILED, FailureClass.OUT_OF_MEMORY)
    assert worked.wait_for(worked.submit("sleep 0.1"), *ENDED).status == RunStatus.DONE


def test_time_limit_ends_even_what_does_not_listen(worked):
    run_id = worked.submit("deaf 100", limits={"minutes": 0.01})
    run = worked.wait_for(run_id, *ENDED)
    assert (run.status, run.failure) == (RunStatus.FAILED, FailureClass.TIME_LIMIT)


@pytest.mark.parametrize("job", ["sleep 100", "deaf 100"], ids=["in a training", "in an evaluation"])
def test_cancelled_run_ends_within_five_seconds(worked, job):
    run_id = worked.submit(job)
    child = worked.wait_for_child(run_id)
    with engine.session(worked.url) as s:
        queue.cancel_run(s, run_id)
        asked_at = s.scalar(select(now()))
    run = worked.wait_for(run_id, *ENDED)
    assert run.status == RunStatus.CANCELLED
    assert run.ended_at - asked_at < 5.0  # the promise of the page
    worked.wait(lambda: gone(child))


def test_run_cancelled_in_the_queue_is_never_begun(cluster):
    run_id, other = cluster.submit("sleep 0.1"), cluster.submit("sleep 0.1")
    with engine.session(cluster.url) as s:
        queue.cancel_run(s, run_id)
    cluster.start_worker()
    cluster.wait_for(other, RunStatus.DONE)
    run = cluster.run(run_id)
    assert (run.status, run.attempt) == (RunStatus.CANCELLED, 0)
