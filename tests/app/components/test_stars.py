"""Stars: given on the run page and in the list, filtered by, and never anyone else's."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.actions import annotations
from app.actions.actor import NotAllowed
from app.components.stars import set_stars
from app.queries.stars import load_stars
from app.screens.runs import table
from core.store import favourites, users
from core.store.engine import read_session, session
from core.store.models import Role, RunStatus
from tests import factories
from tests.actors import actor

MAIN = Path(app.__file__).with_name("main.py")


def opened(page: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page(page)
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


@pytest.fixture
def people(store) -> dict[str, int]:
    with session() as s:
        found = {name: users.enrol(s, name).id for name in (users.LOCAL_USER, "viewer", "stranger")}
        project_id = factories.fill_store(s, 30)
        users.set_role(s, found["viewer"], project_id, Role.VIEWER)
    return found


def starred(user_id: int) -> set[int]:
    with read_session() as s:
        return favourites.find_starred(s, user_id, range(1, 31))


def test_a_click_on_the_run_page_gives_and_takes_the_star(people):
    at = opened("screens/run/page.py", run="7")
    at.button(key="star").click().run()
    assert starred(people["local"]) == {7} and at.button(key="star").icon == "⭐"
    at.button(key="star").click().run()
    assert starred(people["local"]) == set() and not at.exception


def test_the_list_shows_stars_and_filters_by_them(people):
    annotations.star(actor(people["local"]), [3, 9])
    annotations.star(actor(people["viewer"]), [4])
    at = opened("screens/runs/page.py", starred="true")
    assert [text.value for text in at.markdown if "2 runs" in text.value]
    assert "starred by you" in at.caption[0].value
    at = opened("screens/runs/page.py")
    assert [text.value for text in at.markdown if "30 runs" in text.value]


def test_a_starred_run_bears_its_star_in_the_table(people):
    row = {
        "id": 3, "name": "mine", "last": None, "status": RunStatus.DONE, "recipe": "", "model": "", "task": "",
        "owner": "", "created_at": 0.0, "started_at": None, "ended_at": None, "cancel_requested": False,
    }  # fmt: skip
    assert table.make_table([row], 1.0, {3})[0].cells[2] == "★ mine"
    assert table.make_table([row], 1.0, {4})[0].cells[2] == "mine"


def test_viewers_star_for_themselves_and_strangers_nothing(people):
    assert annotations.star(actor(people["viewer"]), [3]) == 1
    assert (starred(people["viewer"]), starred(people["local"])) == ({3}, set())
    for act in (annotations.star, annotations.unstar):
        with pytest.raises(NotAllowed):
            act(actor(people["stranger"]), [3])


def test_stars_are_read_anew_after_ones_own_click(people):
    assert load_stars(people["local"], (3,)) == set()
    assert set_stars(actor(people["local"]), [3], starred=True) == 1
    assert load_stars(people["local"], (3,)) == {3}
