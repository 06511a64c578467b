"""The table of runs: filters, pages, the address, and what is done to several at once."""

import time
from pathlib import Path

import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

import app
from app.queries.projects import load_projects
from app.screens.runs import table
from core.store import users
from core.store.engine import read_session, session
from core.store.listing import ORDERS
from core.store.models import Membership, Role, Run, RunStatus
from tests import factories
from tests.app import row_tables

MAIN = Path(app.__file__).with_name("main.py")


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/runs/page.py")
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def numbers(at: AppTest) -> list[int]:
    """Numbers of the listed runs."""
    return list(row_tables.frame(at).index)


@pytest.fixture
def runs(store):
    """130 runs, the last of them running."""
    with session() as s:
        factories.fill_store(s, 130)
        s.get_one(Run, 130).status = RunStatus.RUNNING
    return store


def test_an_empty_project_leads_to_submit(store):
    assert "has no runs yet" in opened().info[0].value


def test_the_newest_come_first_fifty_on_a_page(runs):
    assert numbers(opened()) == list(range(130, 80, -1))


def test_the_address_holds_page_filters_and_order(runs):
    with read_session() as s:
        done = s.scalars(select(Run.id).where(Run.status == RunStatus.DONE, Run.search.contains("svd"))).all()
    assert numbers(opened(status="done", text="SVD", sort="oldest")) == sorted(done)
    assert numbers(opened(page="2")) == list(range(80, 30, -1))


@pytest.mark.parametrize(("key", "column"), [("model", Run.model), ("task", Run.task)])
def test_a_filter_leaves_only_its_runs(runs, key, column):
    with read_session() as s:
        value = s.scalars(select(column).where(Run.id == 7)).one()
        expected = s.scalars(select(Run.id).where(column == value).order_by(Run.id.desc()).limit(50)).all()
    assert numbers(opened(**{key: value})) == list(expected)


def test_a_filter_that_leaves_nothing_says_so(runs):
    assert "No runs match" in opened(text="nothing like it").info[0].value


def test_owners_filter_by_name(runs):
    with session() as s:
        other = users.enrol(s, "ada")
        s.get_one(Run, 5).owner_id = other.id
    assert numbers(opened(owner="ada")) == [5]


def select_rows(at: AppTest, rows: list[int]) -> AppTest:
    """Tick the boxes of rows; AppTest takes what a component would send through the state of the widget."""
    ids = [numbers(at)[row] for row in rows]
    at.session_state["runs"] = {"selected": ids}
    return at.run()


def test_selected_runs_are_cancelled_and_requeued(runs, monkeypatch):
    cancelled, requeued = [], []
    monkeypatch.setattr("app.actions.runs.cancel", lambda user, ids: cancelled.extend(ids) or len(ids))
    monkeypatch.setattr("app.actions.runs.requeue", lambda user, ids: requeued.extend(ids) or len(ids))
    at = select_rows(opened(), [0, 1, 2])
    with read_session() as s:
        ended = [run.id for run in s.scalars(select(Run).where(Run.id.in_((130, 129, 128)))) if run.ended_at]
    ended = [number for number in (130, 129, 128) if number in ended and number != 130]
    next(b for b in at.button if b.label.startswith("Cancel")).click().run()
    assert 130 in cancelled and not set(cancelled) & set(ended)
    at = select_rows(opened(), [0, 1, 2])
    next(b for b in at.button if b.label.startswith("Requeue")).click().run()
    assert requeued == ended


def test_viewers_cannot_change_runs(runs):
    with session() as s:
        user = users.enrol(s, users.LOCAL_USER)
        s.get_one(Membership, (user.id, 1)).role = Role.VIEWER
    load_projects.clear()
    at = select_rows(opened(), [0, 1])
    assert [b.disabled for b in at.button if b.label.startswith(("Cancel", "Requeue"))] == [True, True]


RUN = {
    "id": 3, "name": "", "recipe": "train → rtn", "status": RunStatus.DONE, "cancel_requested": False, "failure": None,
    "progress": 1.0, "progress_text": "", "model": "builtin:vit", "task": "builtin:digits", "owner": "ada",
    "created_at": 1000.0, "started_at": 1010.0, "ended_at": 1210.0, "last": None,
}  # fmt: skip
LAST = {
    "label": "rtn 8 bit", "trained": True, "size_bytes": 250_000, "reference_size_bytes": 1_000_000, "score": 96.5,
    "score_unit": "%", "score_delta": -0.5,
}  # fmt: skip


def line(run: dict, now: float | None = None) -> dict[str, str]:
    """A run's cells by the names of their columns."""
    cells = table.make_table([run], now)[0].cells
    return dict(zip([column.name for column in table.COLUMNS], cells, strict=True))


def test_a_line_says_what_the_last_stage_came_to():
    cells = line({**RUN, "last": LAST}, now=1300.0)
    assert cells["Size"] == "250 kB (4.00× smaller)"
    assert cells["Score"] == "96.5 % (−0.5 points)"
    assert (cells["Submitted"], cells["Duration"]) == ("5 minutes ago", "3 min 20 s")


def test_a_larger_stage_is_not_called_smaller():
    larger = {**RUN, "last": {**LAST, "size_bytes": 2_000_000}}
    assert line(larger)["Size"] == "2.00 MB (2.00× larger)"


def test_untrained_stages_have_no_score():
    assert line({**RUN, "last": {**LAST, "trained": False}})["Score"] == "untrained"


def test_a_run_that_stops_says_so():
    running = {**RUN, "status": RunStatus.RUNNING, "cancel_requested": True, "started_at": time.time()}
    assert line(running)["Status"] == "stopping"


def test_every_order_that_a_head_offers_is_one_of_the_stores():
    offered = [order for column in table.COLUMNS for order, _ in column.orders]
    assert sorted(offered) == sorted(ORDERS)


def test_every_status_has_a_badge():
    assert {status.value for status in RunStatus} | {"stopping"} == {text for text, _ in table.BADGES}
