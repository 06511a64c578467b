"""What is recorded of stages whose artifact was damaged or computed again, and which runs are told."""

from sqlalchemy import select, update

from core.integrity import DamagedArtifact
from core.measured import Comparison
from core.store import queue, renewal, runs, stages
from core.store.models import Artifact, Event, Run, RunStage, RunStatus
from tests import factories

WEIGHTS = DamagedArtifact("small", {"model.safetensors": "is empty"})
EXAMPLES = DamagedArtifact("small", {"examples.safetensors": "is empty"})


def add(session, key, **changes):
    return stages.add_stage(session, factories.measured(key, **changes), f"{key[:2]}/{key}", 10, "0" * 64)


def attach(session, run_id, position, stage_id, reference_id=None, comparison=None):
    stages.attach_stage(
        session, run_id, position, stage_id, reused=False, reference_stage_id=reference_id, comparison=comparison
    )


def told(session):
    return {event.run_id: event.message for event in session.scalars(select(Event).where(Event.level == "warning"))}


def shared(session):
    """Runs: two that end with `small` against `dense`, one on its way, one that starts from the first, and another."""
    first, second, halfway, other = (factories.submit(session).id for _ in range(4))
    dense, small, more = add(session, "dense"), add(session, "small"), add(session, "more")
    for run_id in (first, second):
        attach(session, run_id, 0, dense, dense)
        attach(session, run_id, 1, small, dense, Comparison(-0.5, -0.6, -0.4, 0.03))
    attach(session, halfway, 0, small)
    attach(session, halfway, 1, more)
    attach(session, other, 0, more)
    from_first, from_halfway = (factories.submit(session, model=f"run:{run_id}").id for run_id in (first, halfway))
    return {"dense": dense, "small": small, "users": {first, second, halfway, from_first}, "later": from_halfway}


def test_every_run_that_has_used_a_damaged_artifact_is_told(session):
    made = shared(session)
    finder = min(made["users"])
    renewal.report_damage(session, WEIGHTS, found_by=f"Run {finder}", except_run=finder)
    messages = told(session)
    assert set(messages) == made["users"] - {finder}
    assert all(
        "model.safetensors is empty" in text and f"Run {finder} found damage" in text for text in messages.values()
    )
    assert session.get(Artifact, made["small"]) is None and session.get(Artifact, made["dense"]) is not None
    assert stages.find_stage(session, "small").manifest_sha256 is None  # its results are of no artifact any more


def test_damaged_results_by_example_leave_the_artifact(session):
    made = shared(session)
    renewal.report_damage(session, EXAMPLES, found_by="A download")
    assert set(told(session)) == made["users"]
    assert stages.find_stage(session, "small").manifest_sha256 == "0" * 64


def test_damage_of_a_stage_that_nobody_recorded_tells_nobody(session):
    renewal.report_damage(session, DamagedArtifact("none", {"model.safetensors": "is empty"}), found_by="Run 1")
    assert told(session) == {}


def test_results_that_differ_take_the_place_of_the_recorded_ones(session):
    made = shared(session)
    first, second, *_ = sorted(made["users"])
    timed = [factories.latency(p50_ms=9.0), factories.latency(p50_ms=9.0, hardware="other")]
    for run_id in (first, second):
        stages.set_latencies(session, run_id, made["small"], timed, made["dense"])
    anew = factories.measured("small", score=40.4, size_bytes=123, details={"layers": []})
    renewal.replace_results(session, first, anew, [factories.latency(p50_ms=2.0)], "dense")
    assert stages.find_stage(session, "small").measured == anew
    assert set(told(session)) == made["users"] - {first}
    assert "→ 40.4" in told(session)[second]
    for run_id in (first, second):
        times = {row.hardware: row.p50_ms for row in stages.list_latencies(session, [run_id])}
        assert times == {timed[0].hardware: 2.0, "other": 9.0}


def test_comparisons_with_replaced_results_are_dropped_until_they_are_made_again(session):
    made = shared(session)
    renewal.replace_results(session, min(made["users"]), factories.measured("dense", score=1.0), [], None)
    deltas = select(RunStage.score_delta).where(RunStage.stage_id == made["small"], RunStage.position == 1)
    assert session.scalars(deltas).all() == [None, None]
    assert renewal.list_outdated(session, "dense") == renewal.list_outdated(session, "small") == [("small", "dense")]
    assert renewal.list_outdated(session, "more") == []
    renewal.compare(session, "small", "dense", Comparison(1.5, 1.0, 2.0, 0.01))
    assert session.scalars(deltas).all() == [1.5, 1.5]
    assert renewal.list_outdated(session, "dense") == []


def test_equal_results_change_nothing_and_tell_nobody(session):
    made = shared(session)
    renewal.replace_results(session, min(made["users"]), factories.measured("small"), [], "dense")
    assert told(session) == {} and renewal.list_outdated(session, "small") == []
    renewal.replace_results(session, min(made["users"]), factories.measured("never"), [], "dense")
    assert stages.find_stage(session, "never") is None


def test_a_recorded_stage_without_its_artifact_is_computed_by_one_run_at_a_time(session):
    add(session, "small")
    for _ in range(2):
        factories.submit(session)
        queue.claim_next_run(session, None, "cpu", [], 30.0)
    first, second = session.scalars(select(Run.id).order_by(Run.id))
    assert [queue.start_computing(session, run_id, 1, "small") for run_id in (first, second)] == [True, True]
    renewal.report_damage(session, WEIGHTS, found_by="Run 1")
    assert [queue.start_computing(session, run_id, 1, "small") for run_id in (first, second)] == [True, False]


def test_a_run_whose_last_artifact_is_gone_is_not_taken_for_its_earlier_stage(session):
    made = shared(session)
    run_id = min(made["users"])
    session.execute(update(Run).where(Run.id == run_id).values(status=RunStatus.DONE))
    assert stages.find_run_stage(session, run_id) == ("small", "sm/small")
    renewal.report_damage(session, WEIGHTS, found_by="Run 1")
    assert stages.find_run_stage(session, run_id) == ("small", None)
    assert runs.get_run(session, run_id).status == RunStatus.DONE
