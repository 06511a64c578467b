"""The queue page: what runs, what waits in which order, and who works."""

from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

import app
from app.queries.projects import load_projects
from core.store import listing, users, workers
from core.store.engine import read_session, session
from core.store.models import Membership, Role, Run, RunStatus, Worker
from tests import factories

MAIN = Path(app.__file__).with_name("main.py")


def opened() -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/queue/page.py").run()
    assert not at.exception
    return at


@pytest.fixture
def queued(store):
    """Runs 1, 2 and 3, waiting in that order."""
    with session() as s:
        for name in ("first", "second", "third"):
            factories.submit(s, name=name)


def order() -> list[int]:
    with read_session() as s:
        return [row.id for row in listing.list_queue(s)]


def words(at: AppTest) -> str:
    kinds = ("subheader", "markdown", "caption", "info", "warning")
    return "\n".join(element.value for kind in kinds for element in getattr(at, kind))


def test_an_empty_queue_leads_to_submit(store):
    at = opened()
    assert "The queue is empty." in words(at)
    assert "No workers" in words(at)


@pytest.mark.parametrize(
    ("key", "after"), [("top.3", [3, 1, 2]), ("up.3", [1, 3, 2]), ("down.1", [2, 1, 3]), ("down.2", [1, 3, 2])]
)
def test_runs_move(queued, key, after):
    opened().button(key=key).click().run()
    assert order() == after


def test_the_ends_of_the_queue_move_no_further(queued):
    at = opened()
    assert at.button(key="up.1").disabled and at.button(key="top.1").disabled and at.button(key="down.3").disabled


def test_a_queued_run_is_cancelled_at_once(queued):
    opened().button(key="cancel.2").click().run()
    with read_session() as s:
        assert s.get_one(Run, 2).status == RunStatus.CANCELLED
    assert order() == [1, 3]


def test_what_all_wait_for_is_said_once(queued):
    assert words(opened()).count("wait for a worker") == 1


def test_a_running_run_shows_progress_and_time_left(queued):
    with session() as s:
        values = {"status": RunStatus.RUNNING, "progress": 0.5, "progress_text": "train: 10", "seconds_left": 200.0}
        s.execute(update(Run).where(Run.id == 1).values(values))
    at = opened()
    assert "about 3 min 20 s left" in words(at)
    assert at.get("progress")[0].proto.text == "train: 10"
    at.button(key="cancel.1").click().run()
    assert at.button(key="cancel.1").disabled


def test_a_lost_worker_is_flagged(queued):
    with session() as s:
        workers.register_worker(s, "host-cpu-1", "cpu", hardware={}, offers={}, provides=["cpu"])
        s.execute(update(Worker).values(last_seen_at=Worker.last_seen_at - 120))
    assert "lost, seen 2 min" in words(opened())


def test_viewers_only_look(queued):
    with session() as s:
        user = users.enrol(s, users.LOCAL_USER)
        s.get_one(Membership, (user.id, 1)).role = Role.VIEWER
    load_projects.clear()
    at = opened()
    assert all(button.disabled for button in at.button)
