"""Who uses the page: everyone as one local user, or people whom a provider signs in."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from core.settings import settings
from core.store import users
from core.store.engine import read_session
from core.store.models import Role, User

MAIN = Path(app.__file__).with_name("main.py")


@pytest.fixture
def oidc(store, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_AUTH", "oidc")
    settings.cache_clear()


def opened(**user) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    at.user = user
    at.run()
    at.switch_page("screens/system.py").run()
    assert not at.exception
    return at


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
