"""Several projects in a real browser: addresses name the one that is shown."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import select, update

from core.store.engine import session
from core.store.models import Membership, Project, Role, Run, RunStage, RunStatus, User
from tests.e2e.test_moves import SLOW, open_page, see, settings, sidebar

pytestmark = pytest.mark.browser
NAME = "second & last"


@pytest.fixture(scope="module", autouse=True)
def second_project(server) -> None:
    """A second project that the pages' user is in too, with the first two finished runs."""
    with session(server.store_url) as s:
        project = Project(name=NAME)
        s.add(project)
        s.flush()
        user_id = s.scalars(select(User.id).where(User.name == "local")).one()
        s.add(Membership(user_id=user_id, project_id=project.id, role=Role.OWNER))
        moved = s.scalars(select(Run.id).where(Run.status == RunStatus.DONE).order_by(Run.id).limit(2)).all()
        s.execute(update(Run).where(Run.id.in_(moved)).values(project_id=project.id))
        s.execute(update(RunStage).where(RunStage.run_id.in_(moved)).values(project_id=project.id))


def test_a_copied_address_shows_its_project_in_a_second_browser(page, server, browser):
    open_page(page, f"{server.url}/runs", "Runs")
    page.wait_for_url(re.compile("project=default"))
    page.get_by_label("Project").click()
    page.get_by_role("option", name=NAME).click()
    expect(page.get_by_text("2 runs, showing 1 to 2")).to_be_visible()
    page.locator("table a").first.click()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    assert settings(page)["project"] == [NAME]
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    second = context.new_page()
    second.goto(page.url)
    expect(second.get_by_role("tab", name="Stages")).to_be_visible(timeout=SLOW)
    for name in ("Runs", "Trade-offs", "Queue", "Provenance"):
        sidebar(second, name)
        see(second, name)
        expect(second).to_have_url(re.compile("project="))  # one that is followed at once is corrected afterwards
        assert settings(second) == {"project": [NAME]}
    sidebar(second, "Runs")
    expect(second.get_by_text("2 runs, showing 1 to 2")).to_be_visible()
    with context.expect_page() as opened:
        second.locator("table a").first.click(modifiers=["Control"])
    expect(opened.value.get_by_role("tab", name="Stages")).to_be_visible(timeout=SLOW)
    assert settings(opened.value)["project"] == [NAME]
    context.close()


def test_back_returns_to_the_project_that_was_shown(page, server):
    open_page(page, f"{server.url}/runs?project=second+%26+last", "Runs")
    expect(page.get_by_text("2 runs, showing 1 to 2")).to_be_visible()
    open_page(page, f"{server.url}/runs?project=default", "Runs")
    expect(page.get_by_text("28 runs, showing 1 to 28")).to_be_visible()
    sidebar(page, "Trade-offs")
    see(page, "Trade-offs")
    page.go_back()
    expect(page.get_by_text("28 runs, showing 1 to 28")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("2 runs, showing 1 to 2")).to_be_visible()
    expect(page.get_by_role("combobox", name="Project")).to_have_value(NAME)
