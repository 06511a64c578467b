"""Champions of devices on the pages: who may name one, and where it is shown."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.actions import champions
from app.actions.actor import NotAllowed
from core.store import champions as stored_champions
from core.store import stages, users
from core.store.champions import NotTimedError
from core.store.engine import read_session, session
from core.store.models import Membership, Role, RunStatus
from core.store.tradeoffs.filters import Conditions
from tests import factories
from tests.actors import actor
from tests.app import row_tables

MAIN = Path(app.__file__).with_name("main.py")
DEVICE = Conditions(factories.HARDWARE, "eager", 8, 1, None, "forward")
HOSTILE = "<script>alert(1)</script> **b** :red[x]"


@pytest.fixture
def run_id(store) -> int:
    """A finished run whose last stage was timed."""
    with session() as s:
        run = factories.submit(s)
        for position, key in enumerate("ab"):
            stage_id = stages.add_stage(s, factories.measured(key * 64, label=f"stage {key}"), key, 1, "0")
            stages.attach_stage(s, run.id, position, stage_id, reused=False, reference_stage_id=None, comparison=None)
        stages.set_latencies(s, run.id, stage_id, [factories.latency()], None)
        run.status = RunStatus.DONE
        return run.id


def users_of(run_id: int) -> tuple[int, int]:
    """A member (the pages' user) and a viewer of the project."""
    with session() as s:
        viewer = users.enrol(s, "viewer").id
        s.add(Membership(user_id=viewer, project_id=1, role=Role.VIEWER))
        return users.enrol(s, users.LOCAL_USER).id, viewer


def page(name: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page(f"screens/{name}/page.py")
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def now() -> list[dict]:
    with read_session() as s:
        return stored_champions.list_champions(s, 1, "0" * 64)


def test_members_name_champions_and_viewers_do_not(run_id):
    member, viewer = users_of(run_id)
    with pytest.raises(NotAllowed):
        champions.crown(actor(viewer), run_id, 1, DEVICE, "")
    with pytest.raises(NotTimedError):
        champions.crown(actor(member), run_id, 0, DEVICE, "")
    assert now() == []
    champions.crown(actor(member), run_id, 1, DEVICE, "  agreed  ")
    assert [(row["run_id"], row["note"]) for row in now()] == [(run_id, "agreed")]
    with pytest.raises(NotAllowed):
        champions.dethrone(actor(viewer), "0" * 64, DEVICE, "")
    champions.dethrone(actor(member), "0" * 64, DEVICE, "")
    assert now() == []


def test_the_run_page_names_a_champion_and_says_so(run_id):
    at = page("run", run=str(run_id))
    at.session_state["crown"] = True
    at.run()
    next(widget for widget in at.text_input if widget.label == "Reason").set_value(HOSTILE)
    next(button for button in at.button if button.label == "Make champion").click().run()
    assert not at.exception
    [told] = [text.value for text in at.markdown if "**Champion** of" in text.value]
    assert "stage b" in told and factories.HARDWARE in told
    assert "<script>" not in told and "**b**" not in told
    assert [row["note"] for row in now()] == [HOSTILE]


def test_trade_offs_list_champions_and_their_history(run_id):
    member, _ = users_of(run_id)
    closed = page("tradeoffs")
    assert "No stage is a device's champion" not in " ".join(info.value for info in closed.info)  # not read yet
    champions.crown(actor(member), run_id, 1, DEVICE, "first")
    champions.crown(actor(member), run_id, 1, DEVICE, "second")
    at = page("tradeoffs")
    at.session_state["champions"] = True
    at.run()
    assert not at.exception
    told = [row_tables.frame(at, index) for index in (0, 1)]
    assert told[0]["Note"].tolist() == ["second"]
    assert told[1]["Note"].tolist() == ["second", "first"]
