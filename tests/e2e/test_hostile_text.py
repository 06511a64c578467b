"""What users wrote, in a real browser: no script runs, nothing is loaded from elsewhere, nothing breaks the layout."""

import pytest
from playwright.sync_api import Page, expect

from core.store.engine import session
from tests import hostile
from tests.e2e.pages import SLOW

pytestmark = pytest.mark.browser
MARK = "window.hit=(window.hit||0)+1"
TEXT = (
    f'{"W" * 60}<script>{MARK}</script><img src=x onerror={MARK}>"\' onmouseover={MARK} x="[x](javascript:{MARK}) '
    f"![i](http://example.org/i.png) <svg/onload={MARK}> {{{{7*7}}}} ${{{MARK}}} "
    "$\\rule{9999em}{9999em}$ \u202eturned "
    f"{'W' * 300} "
    + "| a | b |\n|---|---|\n| `c` | ![j](//example.org/j.png) |\n\n# head\n<div style='position:fixed'>"
)
PAGES = {
    "": "Trade-offs",
    "runs": "Runs",
    "queue": "Queue",
    "compare?runs={run},{run}.0": "Compare",
    "compare?runs={run},{run}.0&show=Settings": "Compare",
    "compare?runs={run},{run}.0&show=Curves": "Compare",
    "provenance?of={run}": "Provenance",
    "system": "System",
    "submit?clone={run}": "Submit",
    **{f"run?run={{run}}&tab={tab}": None for tab in ("Stages", "Curves", "Log", "Spec", "Artifacts", "Notes")},
}


@pytest.fixture(scope="module")
def run_id(server) -> int:
    with session(server.store_url) as s:
        return hostile.add_run(s, TEXT)


@pytest.fixture
def watched(page: Page) -> Page:
    """A page whose dialogs and requests to other hosts are kept in `told`."""
    told: list[str] = []
    page.told = told  # type: ignore[attr-defined]
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: told.append(request.url) if "example.org" in request.url else None)
    return page


def opened(page: Page, url: str, heading: str | None) -> None:
    page.goto(url)
    title = page.get_by_role("heading", level=1).first
    expect(title).to_contain_text(heading or "<script>", timeout=SLOW)
    expect(title).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(1500)  # charts and tables follow


def assert_harmless(page: Page) -> None:
    assert page.told == []
    assert page.evaluate("window.hit") is None
    assert page.locator("a[href^='javascript' i], img[src*='example.org'], main script").count() == 0
    assert page.locator("main [style*='position:fixed']").count() == 0
    too_wide = """() => [document.documentElement, document.querySelector('[data-testid=stMain]')]
        .map(element => element.scrollWidth - innerWidth)"""
    assert max(page.evaluate(too_wide)) <= 0


@pytest.mark.parametrize("address", PAGES)
def test_no_page_runs_loads_or_breaks(watched, server, run_id, address):
    opened(watched, f"{server.url}/{address.format(run=run_id)}", PAGES[address])
    watched.mouse.move(700, 500)
    assert_harmless(watched)


def test_the_menu_of_views(watched, server, run_id):
    opened(watched, f"{server.url}/runs", "Runs")
    watched.get_by_role("button", name="Views").click()
    link = watched.locator("[data-testid=stPopoverBody] a").first
    expect(link).to_contain_text("<script>")
    assert_harmless(watched)
    box, screen = link.bounding_box(), watched.viewport_size
    assert box["x"] >= 0 and box["x"] + box["width"] <= screen["width"]
    link.click()
    expect(watched.get_by_text("No runs match")).to_be_visible()
    assert_harmless(watched)
