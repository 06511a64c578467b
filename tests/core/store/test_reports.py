import pytest

from core.store import reports, users
from core.store.reports import ChangedMeanwhileError


@pytest.fixture
def whose(session):
    ann = users.enrol(session, "ann").id
    return {"owner_id": ann, "project_id": users.list_projects(session, ann)[0].id}


def test_a_report_is_read_with_its_author_in_its_own_project_only(session, whose):
    report = reports.add_report(session, **whose, title="First", text="# a")
    found = reports.read_report(session, whose["project_id"], report.id)
    assert (found.title, found.text, found.owner, found.edition) == ("First", "# a", "ann", 1)
    assert reports.read_report(session, whose["project_id"] + 1, report.id) is None
    assert reports.list_reports(session, whose["project_id"] + 1) == []


def test_the_last_changed_comes_first(session, whose):
    first = reports.add_report(session, **whose, title="a")
    second = reports.add_report(session, **whose, title="b")
    first.changed_at, second.changed_at = 1.0, 2.0
    session.flush()
    assert [row.title for row in reports.list_reports(session, whose["project_id"])] == ["b", "a"]
    reports.change_report(session, first.id, 1, title="A", text="x")
    assert [row.title for row in reports.list_reports(session, whose["project_id"])] == ["A", "b"]


def test_nobody_overwrites_what_they_did_not_see(session, whose):
    report = reports.add_report(session, **whose, title="a")
    reports.change_report(session, report.id, 1, title="b", text="mine")
    with pytest.raises(ChangedMeanwhileError, match="has changed this report"):
        reports.change_report(session, report.id, 1, title="c", text="theirs")
    found = reports.read_report(session, whose["project_id"], report.id)
    assert (found.title, found.text, found.edition) == ("b", "mine", 2)


def test_a_deleted_report_is_gone(session, whose):
    report = reports.add_report(session, **whose, title="a")
    reports.delete_report(session, report)
    assert reports.find_report(session, report.id) is None
