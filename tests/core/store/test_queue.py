import threading

import pytest
from sqlalchemy import select

from core.store import events, queue, runs, stages
from core.store.clock import now
from core.store.models import FailureClass, Run, RunStatus
from core.store.queue import Ended
from tests import factories
from tests.stores import another


def claim(session, device="cpu", provides=(), lease=30.0):
    return queue.claim_next_run(session, None, device, provides, lease)


def status(session, run):
    return runs.get_run(session, run.id).status


def test_runs_are_claimed_in_order_of_submission(session):
    submitted = [factories.submit(session, name=name).id for name in "abc"]
    assert [claim(session).id for _ in range(3)] == submitted
    assert claim(session) is None


def test_claim_marks_the_run_and_counts_the_attempt(session):
    factories.submit(session)
    run = claim(session, lease=60.0)
    assert (run.status, run.attempt, run.attempts_left) == (RunStatus.RUNNING, 1, 2)
    left = session.scalar(select(Run.lease_until - now()))
    assert 55 < left <= 60


@pytest.mark.parametrize(
    ("wanted", "device", "fits"), [("cpu", "cpu", True), ("gpu", "cpu", False), ("any", "gpu", True)]
)
def test_device_decides_who_may_claim(session, wanted, device, fits):
    factories.submit(session, device=wanted)
    assert (claim(session, device) is not None) == fits


def test_run_waits_for_a_worker_that_provides_all_its_needs(session):
    owner = factories.submit(session)
    claim(session)
    needs = ["cuda", "technique:rtn#ab"]
    run = runs.submit_run(session, factories.spec(), project_id=owner.project_id, owner_id=owner.owner_id, needs=needs)
    assert claim(session, provides=["cuda"]) is None
    assert claim(session, provides=["cuda", "technique:rtn#cd"]) is None
    assert claim(session, provides=["cuda", "technique:rtn#ab", "other"]).id == run.id


def test_run_that_waits_for_a_stage_is_passed_over_while_another_computes_it(session):
    first, second, third = (factories.submit(session, name=name) for name in "abc")
    assert claim(session).id == first.id
    assert claim(session).id == second.id
    assert queue.start_computing(session, first.id, 1, "key")
    assert not queue.start_computing(session, second.id, 1, "key")
    assert queue.give_back(session, second.id, 1, next_key="key")
    assert claim(session).id == third.id
    assert claim(session) is None
    queue.stop_computing(session, first.id, 1)
    assert claim(session).id == second.id


def test_a_recorded_stage_may_be_used_by_many_at_once(session):
    runs_ = [factories.submit(session) for _ in range(2)]
    for _ in runs_:
        claim(session)
    stages.add_stage(session, factories.measured("key"), "ke/key", 1, "0")
    assert [queue.start_computing(session, run.id, 1, "key") for run in runs_] == [True, True]


def test_lost_run_is_queued_again_until_its_attempts_are_spent(session):
    run = factories.submit(session)
    seen = []
    for _ in range(3):
        claim(session, lease=-1.0)
        seen += [row.status for row in queue.return_lost_runs(session)]
    assert seen == [RunStatus.QUEUED, RunStatus.QUEUED, RunStatus.FAILED]
    assert runs.get_run(session, run.id).failure == FailureClass.LOST
    assert [event.attempt for event in events.list_events(session, run.id)] == [1, 2, 3]


def test_run_with_a_living_lease_is_not_lost(session):
    factories.submit(session)
    claim(session)
    assert queue.return_lost_runs(session) == []


def test_lost_run_that_was_to_be_cancelled_is_cancelled(session):
    run = factories.submit(session)
    claim(session, lease=-1.0)
    queue.cancel_run(session, run.id)
    queue.return_lost_runs(session)
    assert status(session, run) == RunStatus.CANCELLED


def test_writes_of_an_older_attempt_are_refused(session):
    run = factories.submit(session)
    claim(session, lease=-1.0)
    queue.return_lost_runs(session)
    claim(session)
    assert queue.renew_lease(session, run.id, 1, 30) is None
    assert queue.set_progress(session, run.id, 1, 0.5, "", None) is None
    assert queue.is_ours(session, run.id, 1) is None
    assert not queue.finish_run(session, run.id, 1, Ended(RunStatus.DONE))
    assert not queue.give_back(session, run.id, 1)
    assert queue.renew_lease(session, run.id, 2, 30) is False
    assert queue.finish_run(session, run.id, 2, Ended(RunStatus.DONE, seconds=2.5))
    assert (status(session, run), runs.get_run(session, run.id).compute_seconds) == (RunStatus.DONE, 2.5)


def test_given_back_run_keeps_its_attempts_and_its_place(session):
    first, second = factories.submit(session), factories.submit(session)
    claim(session)
    queue.give_back(session, first.id, 1)
    assert runs.get_run(session, first.id).attempts_left == runs.MAX_ATTEMPTS
    assert [claim(session).id, claim(session).id] == [first.id, second.id]


def test_only_infrastructure_failures_are_tried_again(session):
    run = factories.submit(session)
    for attempt, expected in ((1, RunStatus.QUEUED), (2, RunStatus.QUEUED), (3, RunStatus.FAILED)):
        claim(session)
        queue.finish_run(session, run.id, attempt, Ended(RunStatus.FAILED, FailureClass.INFRASTRUCTURE, "no disk"))
        assert status(session, run) == expected
    other = factories.submit(session)
    claim(session)
    queue.finish_run(session, other.id, 1, Ended(RunStatus.FAILED, FailureClass.TECHNIQUE, "singular matrix"))
    assert status(session, other) == RunStatus.FAILED


def test_cancel_is_at_once_in_the_queue_and_a_request_while_running(session):
    waiting, running = factories.submit(session), factories.submit(session)
    assert queue.cancel_run(session, waiting.id)
    assert status(session, waiting) == RunStatus.CANCELLED
    assert claim(session).id == running.id
    assert queue.cancel_run(session, running.id)
    assert status(session, running) == RunStatus.RUNNING
    assert queue.is_cancel_asked(session, running.id, 1)
    queue.finish_run(session, running.id, 1, Ended(RunStatus.CANCELLED))
    assert status(session, running) == RunStatus.CANCELLED
    assert not queue.cancel_run(session, running.id)


def test_run_that_finished_before_it_saw_the_cancel_is_done(session):
    run = factories.submit(session)
    claim(session)
    queue.cancel_run(session, run.id)
    queue.finish_run(session, run.id, 1, Ended(RunStatus.DONE))
    assert status(session, run) == RunStatus.DONE


def test_requeued_run_goes_behind_the_others_with_all_attempts(session):
    first = factories.submit(session)
    claim(session)
    queue.finish_run(session, first.id, 1, Ended(RunStatus.FAILED, FailureClass.TECHNIQUE, "x"))
    second = factories.submit(session)
    assert queue.requeue_run(session, first.id)
    assert not queue.requeue_run(session, first.id)
    assert [claim(session).id, claim(session).id] == [second.id, first.id]
    again = runs.get_run(session, first.id)
    assert (again.attempt, again.attempts_left, again.failure) == (2, 2, None)


def test_many_claimers_take_each_run_exactly_once(store_url):
    with another(store_url) as s:
        submitted = {factories.submit(s).id for _ in range(40)}
    taken: list[int] = []

    def work():
        while True:
            with another(store_url) as s:
                run = claim(s)
            if run is None:
                return
            taken.append(run.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 40
    assert set(taken) == submitted
