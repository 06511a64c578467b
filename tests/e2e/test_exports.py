"""Files as a browser gets them from a real front end."""

import io
import re
import zipfile

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.pages import open_page

pytestmark = pytest.mark.browser


def downloaded(page: Page, label: str) -> bytes:
    """What a button of the Export menu sends."""
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as expected:
        page.get_by_role("button", name=label, exact=True).click()
    return expected.value.path().read_bytes()


def test_the_list_of_runs_is_downloaded_as_the_filters_leave_it(page, server):
    open_page(page, f"{server.url}/runs?model=builtin:gpt", "Runs")
    expect(page.get_by_text(re.compile(r"\d+ runs?, showing 1 to"))).to_be_visible()
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV")))
    assert set(table["model"]) == {"builtin:gpt"} and table["size [bytes]"].max() > 1000


def test_a_chart_is_downloaded_as_a_page_that_draws_without_network(page, server, browser, tmp_path):
    open_page(page, f"{server.url}/", "Trade-offs")
    expect(page.locator("canvas").first).to_be_visible()
    (tmp_path / "chart.html").write_bytes(downloaded(page, "HTML"))
    context = browser.new_context(offline=True)
    alone, asked = context.new_page(), []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto((tmp_path / "chart.html").as_uri())
    expect(alone.locator("#chart canvas")).to_be_visible()
    assert not [url for url in asked if url.startswith("http")]
    context.close()


def test_a_bundle_is_downloaded(page, server):
    open_page(page, f"{server.url}/runs?status=done", "Runs")
    page.goto(f"{server.url}/run?run=1&tab=Artifacts")
    with page.expect_download() as expected:
        page.get_by_role("link", name="Bundle").click()
    with zipfile.ZipFile(expected.value.path()) as archive:
        assert {"manifest.json", "run.json"} <= set(archive.namelist())
