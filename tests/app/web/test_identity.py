"""Who uses the page: everyone as one local user, or people whom a provider signs in."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.text import formats
from core.settings import settings
from core.store import models, users
from core.store.engine import read_session, session
from core.store.models import Role, User
from tests import factories
from tests.app import redirects, row_tables
from tests.app.navigation import go_to

MAIN = Path(app.__file__).with_name("main.py")


@pytest.fixture
def oidc(store, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_AUTH", "oidc")
    settings.cache_clear()


def opened(**user) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.user = user
    at.run()
    at.switch_page("screens/system/page.py").run()
    assert not at.exception
    return at


def page(name: str, **query: str) -> AppTest:
    """A page of the local user at an address."""
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.query_params.update(query)
    go_to(at, name)
    at.run()
    assert not at.exception
    return at


def project(name: str, *members: str) -> int:
    """A further project of these users; returns its number."""
    with session() as s:
        made = models.Project(name=name)
        s.add(made)
        s.flush()
        for member in members:
            s.add(models.Membership(user_id=users.enrol(s, member).id, project_id=made.id, role=Role.MEMBER))
        return int(made.id)


def run_in(project_id: int, name: str) -> None:
    with session() as s:
        factories.submit(s, name=name).project_id = project_id


def projects(at: AppTest) -> list[str]:
    """What the sidebar offers to choose from."""
    return [option for box in at.sidebar.selectbox if box.label == "Project" for option in box.options]


@pytest.fixture
def two(store) -> None:
    """The local user's projects, default and second, each with a run that is called as it is."""
    with session() as s:
        users.enrol(s, users.LOCAL_USER)
    run_in(1, "in default")
    run_in(project("second", users.LOCAL_USER), "in second")


def roles() -> dict[str, list[Role]]:
    with read_session() as s:
        return {user.name: [row.role for row in users.list_projects(s, user.id)] for user in s.query(User)}


def test_without_authentication_everyone_is_the_local_owner(store):
    opened()
    assert roles() == {"local": [Role.OWNER]}


def test_nobody_sees_anything_before_signing_in(oidc):
    at = opened(is_logged_in=False)
    assert [button.label for button in at.button] == ["Sign in"]
    assert roles() == {}


def test_the_first_one_owns_the_project_and_lets_the_next_one_in(oidc):
    owner = opened(is_logged_in=True, email="first@example.org")
    stranger = opened(is_logged_in=True, email="second@example.org")
    assert stranger.title[0].value == "No access yet"
    next(button for button in owner.button if button.label == "Refresh").click().run()
    role = next(box for box in owner.selectbox if box.label == "Role of second@example.org")
    role.set_value(Role.MEMBER).run()
    assert roles() == {"first@example.org": [Role.OWNER], "second@example.org": [Role.MEMBER]}
    assert stranger.run().title[0].value == "System"


def test_one_project_stands_in_no_address_and_is_not_to_be_chosen(store):
    at = page("runs")
    assert projects(at) == [] and redirects.asked(at) is None
    assert not at.query_params


def test_where_there_are_several_the_address_is_given_the_one_that_is_shown(two):
    at = page("runs", status="queued")
    assert redirects.asked(at) == {"address": "", "set": {"project": "default"}, "replace": True}
    assert projects(at) == ["default", "second"] and at.sidebar.selectbox[0].value == "default"
    assert row_tables.frame(at, -1)["Name"].tolist() == ["in default"]


@pytest.mark.parametrize("name", ["default", "second"])
def test_the_address_says_which_project_a_page_shows(two, name):
    at = page("runs", project=name)
    assert redirects.asked(at) is None
    assert row_tables.frame(at)["Name"].tolist() == [f"in {name}"]


def test_a_project_that_is_chosen_is_shown_until_another_is(two):
    at = page("runs", project="default")
    at.sidebar.selectbox[0].set_value("second").run()
    assert row_tables.frame(at, -1)["Name"].tolist() == ["in second"]
    at.switch_page("screens/queue/page.py").run()
    assert "in second" in " ".join(link.proto.label for link in at.get("page_link"))


def test_who_has_a_role_in_one_of_several_shares_addresses_that_name_it(store):
    with session() as s:
        users.enrol(s, users.LOCAL_USER)
    project("another", "someone else")
    at = page("runs")
    assert redirects.asked(at)["set"] == {"project": "default"} and projects(at) == ["default"]


@pytest.mark.parametrize("name", ["another", "no such", "<b>x</b> :red[y]"])
def test_an_address_of_a_project_without_a_role_in_it_shows_nothing_of_any(two, name):
    run_in(project("another", "someone else"), "secret")
    for screen in ("runs", "queue", "tradeoffs", "compare", "provenance", "reports", "submit", "system"):
        at = page(screen, project=name)
        assert at.title[0].value == "No access" and not at.get("bidi_component")
        assert formats.plain(name) in at.info[0].value
    assert [button.label for button in at.button] == ["default", "second"]
    at.button[1].click().run()
    assert redirects.asked(at) == {"address": "./", "set": {"project": "second"}, "replace": False}


def test_a_wrong_project_is_refused_where_there_is_only_one_too(store):
    assert page("runs", project="default").title[0].value == "Runs"
    assert page("runs", project="other").title[0].value == "No access"


def test_whoever_has_no_role_at_all_is_told_so_whatever_the_address_says(oidc):
    opened(is_logged_in=True, email="first@example.org")
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.user = {"is_logged_in": True, "email": "second@example.org"}
    at.query_params["project"] = "default"
    assert at.run().title[0].value == "No access yet"
