"""Champions of devices: the last entry counts, all stay."""

import pytest

from core.store import champions, models, stages, users
from core.store.champions import NotTimedError
from core.store.tradeoffs.filters import Conditions
from tests import factories

DEVICE = Conditions(factories.HARDWARE, "eager", 8, 1, None, "forward")
OTHER = Conditions(factories.HARDWARE, "eager", 8, 64, None, "forward")
TASK = "0" * 64


@pytest.fixture
def two(session):
    """Two runs, each with a stage timed on both devices; their numbers, the project's and the user's."""
    found = []
    for key in "ab":
        run = factories.submit(session)
        stage_id = stages.add_stage(session, factories.measured(key, label=key), key, 1, "0")
        stages.attach_stage(session, run.id, 1, stage_id, reused=False, reference_stage_id=None, comparison=None)
        rows = [factories.latency(batch=batch, p50_ms=float(batch)) for batch in (1, 64)]
        stages.set_latencies(session, run.id, stage_id, rows, None)
        found.append(run.id)
    return session, run.project_id, users.enrol(session, "ada").id, *found


def crown(two, run_id, device=DEVICE, note=""):
    session, project_id, user_id, *_ = two
    told = {"project_id": project_id, "run_id": run_id, "position": 1, "user_id": user_id, "note": note}
    return champions.crown(session, device=device, **told)


def test_the_last_entry_of_a_device_counts_and_the_earlier_ones_stay(two):
    session, project_id, _, first, second = two
    crown(two, first, note="small enough")
    crown(two, second, note="faster")
    crown(two, first, OTHER)
    now = {row["device"]: row for row in champions.list_champions(session, project_id, TASK)}
    assert {device: row["run_id"] for device, row in now.items()} == {DEVICE: second, OTHER: first}
    assert (now[DEVICE]["label"], now[DEVICE]["p50_ms"], now[OTHER]["p50_ms"]) == ("b", 1.0, 64.0)
    assert (now[DEVICE]["user"], now[DEVICE]["note"]) == ("ada", "faster")
    history = champions.list_history(session, project_id, TASK)
    assert [(row["run_id"], row["note"]) for row in history] == [
        (first, ""),
        (second, "faster"),
        (first, "small enough"),
    ]
    assert champions.list_champions(session, project_id, "1" * 64) == []
    assert champions.list_champions(session, project_id + 1, TASK) == []


def test_each_task_has_its_champions_and_all_can_be_asked_for(two):
    session, project_id, _, first, second = two
    session.query(models.Stage).filter_by(key="b").update({"task": "builtin:shapes", "task_hash": "1" * 64})
    crown(two, first)
    crown(two, second)
    found = champions.list_champions(session, project_id)
    assert [(row["run_id"], row["task"], row["task_hash"]) for row in found] == [
        (first, "builtin:digits", TASK),
        (second, "builtin:shapes", "1" * 64),
    ]
    assert [row["run_id"] for row in champions.list_champions(session, project_id, TASK)] == [first]


def test_the_last_measurement_on_a_device_is_found(two):
    session, *_, second = two
    stage_id = stages.find_stage_id(session, "a")
    stages.set_latencies(session, second, stage_id, [factories.latency(p50_ms=9.0), factories.latency(threads=1)], None)
    assert champions.find_latency(session, stage_id, DEVICE).p50_ms == 9.0
    assert champions.find_latency(session, stage_id, OTHER).p50_ms == 64.0
    assert champions.find_latency(session, stage_id, Conditions("none", "eager", 8, 1, None, "forward")) is None


def test_a_title_can_be_taken_away_and_that_is_kept(two):
    session, project_id, user_id, first, _ = two
    crown(two, first)
    told = {"project_id": project_id, "task_hash": TASK, "user_id": user_id}
    champions.dethrone(session, device=DEVICE, note="it crashed", **told)
    assert champions.list_champions(session, project_id, TASK) == []
    assert [(row["stage_id"] is None, row["note"]) for row in champions.list_history(session, project_id, TASK)] == [
        (True, "it crashed"), (False, "")
    ]  # fmt: skip
    assert champions.list_titles(session, first) == []


def test_a_run_tells_its_titles(two):
    session, _, _, first, second = two
    crown(two, first)
    crown(two, first, OTHER)
    crown(two, second)
    assert [row["device"] for row in champions.list_titles(session, first)] == [OTHER]
    assert [row["device"] for row in champions.list_titles(session, second)] == [DEVICE]


def test_only_what_was_timed_on_a_device_can_be_its_champion(two):
    session, project_id, user_id, first, _ = two
    with pytest.raises(NotTimedError, match="not timed"):
        crown(two, first, Conditions("another CPU", "eager", 8, 1, None, "forward"))
    with pytest.raises(NotTimedError):  # of another project
        champions.crown(session, project_id=project_id + 1, device=DEVICE, run_id=first, position=1, user_id=user_id)
