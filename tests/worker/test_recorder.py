import math
from types import SimpleNamespace

import pytest

from core.errors import Cancelled, Interrupted
from core.measured import Comparison, StageRecord
from core.store import curves, engine, events, queue, runs, stages
from core.store.models import RunStatus
from tests import factories
from tests.stores import store_url, templates  # noqa: F401  fixtures
from worker import recorder as module
from worker.claim import Claim, Deferred, TakenAway
from worker.recorder import Recorder

pytestmark = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)


@pytest.fixture
def url(store_url):  # noqa: F811
    return store_url


def claimed(url):
    """A recorder of a freshly claimed run."""
    with engine.session(url) as s:
        factories.submit(s)
        run = queue.claim_next_run(s, None, "cpu", [], 30.0)
        claim = Claim(run.id, run.attempt, "cpu")
    return Recorder(claim, lambda: engine.session(url), lambda: engine.read_session(url))


def state(url, recorder):
    with engine.read_session(url) as s:
        return runs.get_run(s, recorder.claim.run_id)


def record(key, position=1, reference="dense", **changes):
    values = {"comparison": Comparison(-0.1, -0.2, 0.0, 0.04), "latencies": [factories.latency()], "reused": False}
    return StageRecord(
        position, factories.measured(key), f"x/{key}", 10, "0" * 64, reference_key=reference, **values | changes
    )


def test_progress_is_of_the_whole_run(url, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    recorder = claimed(url)
    recorder.begin_step(1, 4, "train", "key")
    recorder.progress(0.5, "update 5 of 10")
    run = state(url, recorder)
    assert (run.progress, run.progress_text, run.computing_key) == (0.375, "train: update 5 of 10", "key")


def test_the_time_left_is_this_steps_at_its_pace_and_of_later_ones_what_earlier_ones_took(url, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)

    def left(after: float, fraction: float) -> float | None:
        clock.now += after
        recorder.progress(fraction, "")
        recorder.flush()
        return state(url, recorder).seconds_left

    recorder = claimed(url)
    recorder.begin_step(0, 4, "source", "a")
    clock.now += 3.0
    recorder.begin_step(1, 4, "train", "b")
    assert left(1.0, 0.0) is None
    assert left(1.5, 0.01) is None  # too early to tell
    assert left(1.5, 0.02) == pytest.approx(3.0 / 0.02 * 0.98 + 2 * 3.0)
    assert left(47.0, 0.5) == pytest.approx(50.0 + 2 * 3.0)
    clock.now += 46.0
    recorder.begin_step(2, 4, "train", "c")
    assert left(5.0, 0.6) is None  # it went on where it had been
    assert left(10.0, 0.8) == pytest.approx(10.0 + (3.0 + 97.0) / 2)


def test_points_are_named_by_position_and_written_in_batches(url):
    recorder = claimed(url)
    recorder.begin_step(2, 3, "train", "key")
    for step in range(module.FLUSH_POINTS + 5):
        recorder.curve("loss", step, float(step))
    with engine.read_session(url) as s:
        assert curves.list_curves(s, [1]) == [(1, "2/loss", module.FLUSH_POINTS, module.FLUSH_POINTS - 1)]
    recorder.flush()
    with engine.read_session(url) as s:
        assert curves.list_curves(s, [1])[0].n_points == module.FLUSH_POINTS + 5


def test_what_is_no_number_is_told_once_and_not_drawn(url):
    recorder = claimed(url)
    for step, value in enumerate((1.0, math.nan, math.inf, 2.0)):
        recorder.curve("loss", step, value)
    recorder.flush()
    with engine.read_session(url) as s:
        assert [row.step for row in curves.read_curve(s, 1, "0/loss")] == [0, 3]
        [line] = [row.message for row in events.list_events(s, 1)]
    assert line.startswith("loss is nan at update 1")


def test_cancel_and_stop_are_raised_at_the_next_progress(url, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    cancelled, stopped = claimed(url), claimed(url)
    with engine.session(url) as s:
        queue.cancel_run(s, cancelled.claim.run_id)
    with pytest.raises(Cancelled):
        cancelled.progress(0.1, "")
    stopped.stop_asked = True
    with pytest.raises(Interrupted):
        stopped.progress(0.1, "")


def test_run_that_was_taken_away_can_be_written_no_more(url):
    recorder = claimed(url)
    with engine.session(url) as s:
        queue.give_back(s, 1, 1)
        assert queue.claim_next_run(s, None, "cpu", [], 30.0).attempt == 2
    recorder.points.append(("0/loss", 0, 1.0))
    for write in (recorder.flush, lambda: recorder.stage(record("a")), lambda: recorder.note_environment({})):
        with pytest.raises(TakenAway):
            write()
    with engine.read_session(url) as s:
        assert curves.list_curves(s, [1]) == []
        assert stages.find_stage(s, "a") is None


def test_stage_is_kept_once_with_its_reference(url):
    recorder = claimed(url)
    recorder.stage(record("dense", 0, comparison=None))
    for _ in range(2):
        recorder.stage(record("small"))
    with engine.read_session(url) as s:
        dense, small = stages.list_run_stages(s, 1)
        assert dense.RunStage.reference_stage_id == small.RunStage.reference_stage_id == dense.Stage.id
        assert small.RunStage.score_delta == -0.1
        assert len(stages.list_latencies(s, [1])) == 2
    assert recorder.find_stage("small").latencies == [("dense", factories.latency())]


def test_second_run_is_deferred_while_the_first_computes_the_stage(url):
    first, second = claimed(url), claimed(url)
    first.begin_step(0, 1, "source", "key")
    with pytest.raises(Deferred) as raised:
        second.begin_step(0, 1, "source", "key")
    assert raised.value.key == "key"
    first.stage(record("key", 0))
    second.begin_step(0, 1, "source", "key")
    assert second.find_stage("key") is not None


def test_only_finished_runs_can_be_started_from(url):
    recorder = claimed(url)
    recorder.stage(record("dense", 0, comparison=None))
    recorder.stage(record("small"))
    assert recorder.find_run(1) is None
    with engine.session(url) as s:
        queue.finish_run(s, 1, 1, queue.Ended(RunStatus.DONE))
    found = recorder.find_run(1)
    assert (found.last_key, found.reference_key) == ("small", "dense")
