"""Saved views: what is kept of a page, who sees it, and what opening one sets."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app.actions import views
from app.actions.actor import NotAllowed
from app.components import views_menu as menu_of_views
from app.text import formats
from app.web.query_string import parse_query, query_of
from core.store import users
from core.store.engine import read_session, session
from core.store.models import Role
from core.store.views import NameTakenError, list_views
from tests import factories
from tests.actors import actor
from tests.app import redirects

MAIN = Path(app.__file__).with_name("main.py")
PROJECT = 1


def opened(page: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page(page)
    at.query_params.update(query)
    at.run()
    assert not at.exception
    return at


def menu(at: AppTest, page: str) -> AppTest:
    """The page with its menu of views open."""
    at.session_state[f"views of {page}"] = True
    return at.run()


@pytest.fixture
def people(store) -> dict[str, int]:
    """The project's owner, who is the user of the pages, a member, a viewer and a stranger."""
    with session() as s:
        found = {name: users.enrol(s, name).id for name in (users.LOCAL_USER, "member", "viewer", "stranger")}
        factories.fill_store(s, 60)
        users.set_role(s, found["member"], PROJECT, Role.MEMBER)
        users.set_role(s, found["viewer"], PROJECT, Role.VIEWER)
    return found


def kept(user_id: int) -> list[tuple[str, str]]:
    with read_session() as s:
        return [(row.name, row.query) for row in list_views(s, PROJECT, user_id)]


@pytest.mark.parametrize(
    "state",
    [
        {"text": "a & b=c?", "status": ["done", "failed"], "x": "Size", "empty": "", "none": None, "no": []},
        {"most": 1.5, "whole": 2.0, "log": False, "text": "ä “x” +1 %20 #"},
    ],
)
def test_a_query_is_read_as_it_was_written(state):
    told = {name: value for name, value in state.items() if value not in ("", None, [])}
    found = parse_query(query_of(state))
    assert found.keys() == told.keys()
    for name, value in told.items():
        expected = (
            str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
        )
        assert found[name] == expected


def test_a_page_is_saved_with_all_that_it_is_set_to(people):
    at = menu(opened("screens/runs/page.py", text="svd", model="builtin:vit", sort="oldest"), "runs")
    next(w for w in at.text_input if w.label.startswith("Save")).set_value(" my  svd ")
    next(button for button in at.button if button.label == "Save").click().run()
    assert not at.exception
    [(name, query)] = kept(people["local"])
    assert name == "my svd"
    assert parse_query(query) == {"text": "svd", "model": "builtin:vit", "sort": "oldest"}


@pytest.mark.parametrize("asked", ["999", "x", ""])
def test_a_view_that_is_not_there_is_told(people, asked):
    assert "view" in opened("screens/view/page.py", view=asked).info[0].value.lower()


def test_someone_elses_view_does_not_open_until_it_is_shared(people):
    number = views.save_view(actor(people["member"], PROJECT), "runs", "theirs", "text=svd")
    assert "not shared with you" in opened("screens/view/page.py", view=str(number)).info[0].value
    views.share_view(actor(people["member"]), number, True)
    led = redirects.asked(opened("screens/view/page.py", view=str(number)))
    assert led == {"address": "runs?text=svd", "set": {}, "replace": True}
    of_points = views.save_view(actor(people["local"], PROJECT), "tradeoffs", "small", "most_mb=1")
    assert redirects.asked(opened("screens/view/page.py", view=str(of_points)))["address"] == "./?most_mb=1"


def test_the_menu_lists_the_pages_views_with_whose_they_are(people):
    views.save_view(actor(people["local"], PROJECT), "runs", "**mine**", "")
    shared = views.save_view(actor(people["member"], PROJECT), "runs", "theirs", "")
    views.share_view(actor(people["member"]), shared, True)
    views.save_view(actor(people["local"], PROJECT), "compare", "elsewhere", "")
    at = menu(opened("screens/runs/page.py"), "runs")
    labels = [link.proto.label for link in at.get("page_link")]
    assert labels == [formats.plain("**mine**"), "theirs :small[:gray[member]]"]


def test_a_view_is_renamed_shared_and_deleted_from_the_menu(people):
    number = views.save_view(actor(people["local"], PROJECT), "runs", "first", "text=svd")
    at = menu(opened("screens/runs/page.py"), "runs")
    at.button(key=f"view.share {number}").click().run()
    assert kept(people["viewer"]) == [("first", "text=svd")]
    at.button(key=f"view.rename {number}").click().run()
    at.text_input(key=f"name of view {number}").set_value("second").run()
    assert kept(people["local"]) == [("second", "text=svd")]
    at.button(key=f"view.delete {number}").click().run()
    assert kept(people["local"]) == [] and not at.exception


def test_who_may_do_what_with_a_view(people):
    save, rename, share, delete = views.save_view, views.rename_view, views.share_view, views.delete_view
    with pytest.raises(NotAllowed):
        save(actor(people["stranger"]), "runs", "x", "")
    of_viewer = save(actor(people["viewer"]), "runs", "x", "")
    with pytest.raises(NotAllowed, match="must be a member"):
        share(actor(people["viewer"]), of_viewer, True)
    for act in (
        lambda: rename(actor(people["member"]), of_viewer, "y"),
        lambda: delete(actor(people["local"]), of_viewer),
    ):
        with pytest.raises(NotAllowed, match="does not exist"):
            act()
    of_member = save(actor(people["member"]), "runs", "x", "")
    share(actor(people["member"]), of_member, True)
    with pytest.raises(NotAllowed, match="belongs to someone else"):
        delete(actor(people["viewer"]), of_member)
    save(actor(people["member"]), "runs", "z", "")
    with pytest.raises(NameTakenError):
        rename(actor(people["member"]), of_member, "z")
    delete(actor(people["local"]), of_member)  # the project's owner clears up what is shared
    assert [name for name, _ in kept(people["member"])] == ["z"]


def test_a_member_who_left_can_change_nothing(people):
    number = views.save_view(actor(people["member"], PROJECT), "runs", "x", "")
    with session() as s:
        users.set_role(s, people["member"], PROJECT, None)
    with pytest.raises(NotAllowed):
        views.delete_view(actor(people["member"]), number)


def bound(at: AppTest) -> set[str]:
    """Names in the address that widgets of the page write."""
    kinds = (
        "menu_button",
        "selectbox",
        "multiselect",
        "number_input",
        "text_input",
        "toggle",
        "button_group",
        "tab_container",
    )
    found = [element for kind in kinds for element in at.get(kind)]
    bound_by_streamlit = {getattr(element.proto, "query_param_key", "") for element in found} - {""}
    keys = [getattr(element, "key", None) or "" for element in found]
    return bound_by_streamlit | {key.removeprefix("address ") for key in keys if key.startswith("address ")}


@pytest.mark.parametrize(
    ("page", "query", "least"),
    [("tradeoffs", {}, 14), ("runs", {}, 6), ("compare", {"runs": "1,3"}, 2), ("provenance", {"of": "1"}, 3)],
)
def test_a_view_keeps_whatever_widgets_write_to_the_address(people, monkeypatch, page, query, least):
    kept_names: set[str] = set()
    monkeypatch.setattr(menu_of_views, "show", lambda page, state, *_: kept_names.update(state))
    at = opened(f"screens/{page}/page.py", **query)
    at.session_state["filters"] = True  # what else is drawn only in an open box
    at.run()
    passing = {"page", "rows"}  # where one is in a list, and how much of it is shown
    assert bound(at) - passing <= kept_names and len(bound(at)) >= least
