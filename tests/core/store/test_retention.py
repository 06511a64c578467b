"""Which weights may go: those of old stages that no run needs."""

from core.store import queue, retention, stages
from core.store.models import Run, RunSource, RunStatus
from tests import factories

OLD, NOW = 1000.0, 2000.0


def run_with(session, keys: str, *, ended_at: float | None) -> Run:
    """A run whose stages have these keys, one letter each; unfinished where it has not ended."""
    run = factories.submit(session)
    for position, key in enumerate(keys):
        stage_id = stages.add_stage(session, factories.measured(key), f"{key}/{key}", 10, "0" * 64)
        stages.attach_stage(session, run.id, position, stage_id, reused=False, reference_stage_id=None, comparison=None)
    if ended_at is not None:
        run.status, run.ended_at = RunStatus.DONE, ended_at
    session.flush()
    return run


def removable(session, **options: bool) -> str:
    found = retention.list_removable(session, NOW, **{"last_too": False, **options})
    assert all(stage.bytes == 10 for stage in found)
    return "".join(stage.key for stage in found)


def test_inner_stages_of_old_runs_may_go_and_last_ones_if_asked(session):
    run_with(session, "abc", ended_at=OLD)
    assert removable(session) == "ab"
    assert removable(session, last_too=True) == "abc"


def test_what_a_later_or_an_unfinished_run_has_stays(session):
    run_with(session, "abcd", ended_at=OLD)
    run_with(session, "ax", ended_at=NOW)
    run_with(session, "by", ended_at=None)
    assert removable(session, last_too=True) == "cd"


def test_a_stage_that_is_another_runs_last_one_stays(session):
    run_with(session, "abc", ended_at=OLD)
    run_with(session, "ab", ended_at=OLD)
    assert removable(session) == "a"


def test_what_an_unfinished_run_starts_from_stays(session):
    source = run_with(session, "ab", ended_at=OLD)
    waiting = run_with(session, "", ended_at=None)
    session.add(RunSource(run_id=waiting.id, source_id=source.id, role="model", position=0))
    session.flush()
    assert removable(session, last_too=True) == ""
    waiting.status, waiting.ended_at = RunStatus.CANCELLED, OLD
    session.flush()
    assert removable(session, last_too=True) == "ab"


def test_what_is_forgotten_is_not_removed_twice(session):
    run_with(session, "ab", ended_at=OLD)
    (first,) = retention.list_removable(session, NOW, last_too=False)
    retention.forget_artifact(session, first.stage_id)
    assert removable(session) == ""


def test_executing_runs_are_counted(session):
    run_with(session, "", ended_at=None)
    assert retention.count_running(session) == 0
    queue.claim_next_run(session, None, "cpu", [], 30.0)
    assert retention.count_running(session) == 1
