"""A report in a real browser: written with a saved view, and read from its file without network."""

import re

import pytest
from playwright.sync_api import expect

from core.store import reports, users
from core.store.engine import session
from tests import hostile
from tests.e2e.pages import SLOW

pytestmark = pytest.mark.browser


def add(store_url: str, text: str) -> int:
    with session(store_url) as s:
        owner = users.enrol(s, users.LOCAL_USER).id
        project = users.list_projects(s, owner)[0].id
        return reports.add_report(s, project_id=project, owner_id=owner, title="Which <b>to</b> ship", text=text).id


def test_a_report_reads_without_network(page, server, browser, tmp_path):
    text = f"# Why\n\n{hostile.TEXT}\n\n{{{{compare?runs=1,3}}}}\n\n{{{{provenance?of=1}}}}\n\n{{{{tradeoffs?}}}}"
    page.goto(f"{server.url}/reports?report={add(server.store_url, text)}")
    expect(page.get_by_role("heading", name="Which <b>to</b> ship")).to_be_visible(timeout=SLOW)
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas")).to_have_count(2, timeout=SLOW)
    with page.expect_download() as expected:
        page.get_by_role("button", name="HTML").click()
    (tmp_path / "report.html").write_bytes(expected.value.path().read_bytes())
    context = browser.new_context(offline=True)
    alone, told = context.new_page(), []
    alone.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
    alone.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    alone.goto((tmp_path / "report.html").as_uri())
    expect(alone.locator(".chart canvas, .chart svg")).to_have_count(2, timeout=SLOW)
    expect(alone.get_by_role("cell", name=re.compile(r"\(base\)"))).to_be_visible()
    assert told == []
    context.close()


def test_a_saved_view_is_put_into_a_report(page, server):
    page.goto(f"{server.url}/compare?runs=1,3")
    page.get_by_role("button", name="Views").click(timeout=SLOW)
    page.get_by_label("Save the current view as").fill("one and three")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("link", name="one and three")).to_be_visible()
    page.goto(f"{server.url}/reports")
    page.get_by_role("button", name="New report").click(timeout=SLOW)
    page.get_by_role("combobox", name=re.compile("Insert a saved view")).click()
    page.get_by_role("option", name="compare: one and three").click()
    expect(page.get_by_label("Text (Markdown)")).to_have_value(re.compile(r"\{\{compare\?runs=1%2C3"))
    page.get_by_label("Title").fill("One and three")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="One and three")).to_be_visible()
    expect(page.get_by_role("cell", name=re.compile(r"\(base\)")).first).to_be_visible()
