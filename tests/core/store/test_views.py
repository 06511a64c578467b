import pytest

from core.store import users, views
from core.store.models import Role
from tests.stores import another


@pytest.fixture
def people(session):
    """Ann, who owns the project, and Ben, its member: (ann, ben, project)."""
    ann, ben = users.enrol(session, "ann").id, users.enrol(session, "ben").id
    project = users.list_projects(session, ann)[0].id
    users.set_role(session, ben, project, Role.MEMBER)
    return ann, ben, project


def save(session, owner, project, name="small", page="runs", query="status=done"):
    return views.save_view(session, project_id=project, owner_id=owner, page=page, name=name, query=query)


def names(session, project, user, page=None):
    return [row.name for row in views.list_views(session, project, user, page)]


def test_a_view_is_its_owners_until_it_is_shared(session, people):
    ann, ben, project = people
    view = save(session, ann, project)
    assert (names(session, project, ann), names(session, project, ben)) == (["small"], [])
    views.share_view(session, view, shared=True)
    [seen] = views.list_views(session, project, ben)
    assert (seen.name, seen.owner, seen.query, seen.shared) == ("small", "ann", "status=done", True)
    views.share_view(session, view, shared=False)
    assert names(session, project, ben) == []


def test_saving_under_a_name_again_replaces_ones_own(session, people):
    ann, ben, project = people
    first = save(session, ann, project)
    views.share_view(session, first, shared=True)
    save(session, ben, project, query="status=failed")
    again = save(session, ann, project, query="model=builtin%3Avit")
    assert again.id == first.id and again.shared
    assert sorted(row.query for row in views.list_views(session, project, ben)) == [
        "model=builtin%3Avit",
        "status=failed",
    ]


def test_views_are_listed_by_page_and_name(session, people):
    ann, _, project = people
    for name, page in (("b", "runs"), ("a", "runs"), ("c", "tradeoffs")):
        save(session, ann, project, name, page)
    assert names(session, project, ann, "runs") == ["a", "b"]
    assert names(session, project, ann) == ["a", "b", "c"]


def test_another_project_has_its_own(session, people):
    ann, _, project = people
    save(session, ann, project)
    assert names(session, project + 1, ann) == []


def test_a_name_is_not_given_twice(session, people):
    ann, _, project = people
    save(session, ann, project, "a")
    second = save(session, ann, project, "b")
    with pytest.raises(views.NameTakenError, match="“a”"):
        views.rename_view(session, second, "a")
    assert second.name == "b"
    views.rename_view(session, second, "c")
    assert names(session, project, ann) == ["a", "c"]


def test_views_outlive_the_connection_until_they_are_deleted(store_url):
    with another(store_url) as s:
        ann = users.enrol(s, "ann").id
        project = users.list_projects(s, ann)[0].id
        view_id = save(s, ann, project).id
    with another(store_url) as s:
        views.delete_view(s, views.find_view(s, view_id))
    with another(store_url) as s:
        assert views.find_view(s, view_id) is None
