"""Moving between pages in a real browser: Back returns to a page as it was."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from tests.e2e.pages import SLOW, menu, open_page, see

pytestmark = pytest.mark.browser
FOUND = re.compile(r"\d+ runs?, showing 1 to \d+")


def settings(page: Page) -> dict[str, list[str]]:
    """What the page's address says."""
    return parse_qs(urlsplit(page.url).query)


def searched(page: Page) -> Locator:
    """The field of the page that takes words to search for."""
    return page.get_by_placeholder("name, recipe, model, task or tags")


def sidebar(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()


def follow(page: Page, address: str) -> None:
    """Click a link to an address of the board."""
    page.evaluate(
        "(href) => document.body.appendChild(Object.assign(document.createElement('a'), { href })).click()", address
    )


class Answers:
    """What the server sends to a page, which can be held back for a while, as on a busy machine."""

    def __init__(self, page: Page):
        self.page = page
        self.held: list[str | bytes] | None = None
        page.route_web_socket(re.compile("_stcore/stream"), self._connect)

    def hold(self) -> None:
        """Keep what comes from now on."""
        self.held = []

    def await_one(self) -> None:
        """Wait until the server has said something that is kept."""
        while not self.held:
            self.page.wait_for_timeout(50)

    def release(self) -> None:
        """Hand over what was kept, and what comes, at once."""
        kept, self.held = self.held or [], None
        for message in kept:
            self.page_side.send(message)

    def _connect(self, page_side: WebSocketRoute) -> None:
        self.page_side = page_side
        server_side = page_side.connect_to_server()
        server_side.on_message(lambda message: self._take(message))

    def _take(self, message: str | bytes) -> None:
        if self.held is None:
            self.page_side.send(message)
        else:
            self.held.append(message)


def test_back_from_a_run_returns_to_the_filtered_list(page, server):
    open_page(page, f"{server.url}/runs?sort=oldest", "Runs")
    page.get_by_role("button", name="done", exact=True).click()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Technique").click()
    page.get_by_role("option", name="rtn", exact=True).click()
    expect(page.get_by_text("Only technique rtn.")).to_be_visible()
    page.keyboard.press("Escape")
    shown, before = page.get_by_text(FOUND).inner_text(), settings(page)
    assert before == {"sort": ["oldest"], "status": ["done"], "technique": ["rtn"]}
    first = page.locator("table a").first.inner_text()
    page.locator("table a").first.click()
    page.wait_for_url(re.compile(f"/run\\?run={first}$"))
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    expect(page).to_have_title(f"Run {first} · Slimboard")
    page.go_back()
    expect(page.get_by_text("Only technique rtn.")).to_be_visible(timeout=SLOW)
    expect(page).to_have_title("Runs · Slimboard")
    expect(page.get_by_text(FOUND)).to_have_text(shown)
    assert settings(page) == before
    expect(page.locator("table a").first).to_have_text(first)
    page.go_forward()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()


def test_back_from_a_run_returns_to_the_trade_offs_limits_and_axes(page, server):
    open_page(page, f"{server.url}/?points_of=builtin:shapes", "Trade-offs")
    page.get_by_text("Filters, limits and conditions").click()
    page.get_by_label("Size at most (MB)").fill("7")
    page.get_by_label("Size at most (MB)").press("Enter")
    page.wait_for_url(re.compile("most_mb=7"))
    menu(page, "X axis").click()
    page.get_by_role("menuitem", name="Multiply-accumulates").click()
    page.wait_for_url(re.compile("x=Multiply"))
    expect(page.get_by_text("within the limits:")).to_be_visible()
    before = settings(page)
    page.locator("table a").first.click()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("within the limits:")).to_be_visible(timeout=SLOW)
    expect(menu(page, "X axis")).to_contain_text("Multiply-accumulates")
    assert settings(page) == before


def test_back_from_other_links_and_buttons_returns_too(page, server):
    open_page(page, f"{server.url}/runs?text=rtn", "Runs")
    page.get_by_role("checkbox", name="Select all rows").check()
    page.get_by_role("button", name=re.compile("Compare")).click()
    see(page, "Compare")
    page.wait_for_url(re.compile(r"compare\?runs="))
    page.go_back()
    expect(searched(page)).to_have_value("rtn", timeout=SLOW)
    sidebar(page, "Queue")
    see(page, "Queue")
    page.go_back()
    expect(searched(page)).to_have_value("rtn", timeout=SLOW)
    sidebar(page, "Runs")  # the page itself stays as it is set
    expect(searched(page)).to_have_value("rtn")
    assert settings(page) == {"text": ["rtn"]}


def test_back_from_a_runs_tab_returns_to_the_tab_of_compare(page, server):
    open_page(page, f"{server.url}/compare?runs=1,3&show=Settings", "Compare")
    settings_tab = page.get_by_role("tab", name="Settings")
    expect(settings_tab).to_have_attribute("aria-selected", "true")
    follow(page, "run?run=1")
    page.get_by_role("tab", name="Spec").click()
    page.wait_for_url(re.compile("tab=Spec"))
    page.go_back()
    see(page, "Compare")
    expect(settings_tab).to_have_attribute("aria-selected", "true", timeout=SLOW)
    assert settings(page) == {"runs": ["1,3"], "show": ["Settings"]}


def test_a_saved_view_leaves_no_address_of_its_own_behind(page, server):
    open_page(page, f"{server.url}/provenance?words=rtn", "Provenance")
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Save the current view as").fill("all rtn")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("link", name="all rtn")).to_be_visible()
    open_page(page, f"{server.url}/provenance?words=svd", "Provenance")
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="all rtn").click()
    expect(searched(page)).to_have_value("rtn")
    page.go_back()
    expect(searched(page)).to_have_value("svd", timeout=SLOW)


def test_a_link_that_is_clicked_before_the_server_answered_keeps_the_way_back(page, server):
    answers = Answers(page)
    open_page(page, f"{server.url}/runs?sort=oldest", "Runs")
    expect(page.locator("table a").first).to_be_visible(timeout=SLOW)
    answers.hold()
    page.get_by_role("button", name="done", exact=True).click()
    page.wait_for_url(re.compile("status=done"))  # which the browser writes itself
    before = settings(page)
    answers.await_one()  # that it draws the page anew
    page.locator("table a").first.click()
    page.wait_for_url(re.compile(r"run\?run="))
    answers.release()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr").filter(has_text="done").first).to_be_visible(timeout=SLOW)
    expect(page.locator("tbody tr").filter(has_not_text="done")).to_have_count(0)
    assert settings(page) == before


def test_an_axis_that_is_chosen_right_before_a_link_is_clicked_stays_with_its_page(page, server):
    answers = Answers(page)
    open_page(page, f"{server.url}/?points_of=builtin:shapes", "Trade-offs")
    expect(page.locator("table a").first).to_be_visible(timeout=SLOW)
    menu(page, "X axis").click()
    answers.hold()
    page.get_by_role("menuitem", name="Multiply-accumulates").click()
    answers.await_one()
    page.locator("table a").first.click()
    page.wait_for_url(re.compile(r"run\?run="))
    answers.release()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    page.go_back()
    expect(menu(page, "X axis")).to_contain_text("Multiply-accumulates", timeout=SLOW)
    assert settings(page) == {"points_of": ["builtin:shapes"], "x": ["Multiply-accumulates"]}


@pytest.mark.parametrize("width", [1440, 600], ids=["beside the sidebar", "under the closed sidebar"])
def test_a_limit_that_is_set_right_before_a_link_is_clicked_stays_with_its_page(page, server, width):
    page.set_viewport_size({"width": width, "height": 1000})
    answers = Answers(page)
    open_page(page, f"{server.url}/?points_of=builtin:shapes", "Trade-offs")
    page.get_by_text("Filters, limits and conditions").click()
    page.get_by_label("Size at most (MB)").fill("7")
    expect(page.locator("table a").first).to_be_visible(timeout=SLOW)
    answers.hold()
    page.get_by_label("Size at most (MB)").press("Enter")
    answers.await_one()
    page.locator("table a").first.click()
    page.wait_for_url(re.compile(r"run\?run="))
    of_run = page.url
    answers.release()
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    page.get_by_role("tab", name="Spec").click()
    page.wait_for_url(f"{of_run}&tab=Spec")
    page.go_back()
    expect(page.get_by_text("within the limits:")).to_be_visible(timeout=SLOW)
    assert settings(page) == {"points_of": ["builtin:shapes"], "most_mb": ["7"]}


def test_links_and_buttons_keep_an_embedded_page_embedded(page, server):
    open_page(page, f"{server.url}/runs?embed=true&embed_options=disable_scrolling", "Runs")
    kept = {"embed": ["true"], "embed_options": ["disable_scrolling"]}
    first = page.locator("table a").first.inner_text()
    page.locator("table a").first.click()
    page.wait_for_url(re.compile(r"run\?run="))
    assert settings(page) == {"run": [first], **kept}
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    expect(page.get_by_test_id("stMainMenu")).to_have_count(0)
    page.get_by_role("button", name="Clone and edit").click()
    see(page, "Submit a run")
    assert settings(page) == {"clone": [first], **kept}
    page.go_back()
    page.go_back()
    see(page, "Runs")
    assert settings(page) == kept


def test_a_page_that_is_opened_in_a_narrow_window_is_not_left_under_the_sidebar(page, server):
    page.set_viewport_size({"width": 600, "height": 900})
    open_page(page, f"{server.url}/runs", "Runs")
    links = page.get_by_test_id("stSidebarNav")
    for name in ("Queue", "Queue"):  # also the page that is open
        page.get_by_test_id("stExpandSidebarButton").click()
        expect(links).to_be_in_viewport()
        sidebar(page, name)
        see(page, name)
        expect(links).not_to_be_in_viewport()


def test_a_click_on_a_head_of_the_table_before_is_heard(page, server):
    answers = Answers(page)
    open_page(page, f"{server.url}/runs", "Runs")
    rows = page.locator("tbody tr")
    expect(rows.first).to_be_visible()
    n_all = rows.count()
    searched(page).fill("rtn")
    answers.hold()
    searched(page).press("Enter")
    answers.await_one()
    page.wait_for_timeout(1500)  # until the server has drawn the table anew, which the page does not show yet
    page.get_by_role("button", name="Submitted").click()
    answers.release()
    page.wait_for_url(re.compile("sort=oldest"))
    expect(page.locator('th[aria-sort="ascending"]')).to_have_text("Submitted")
    assert settings(page) == {"text": ["rtn"], "sort": ["oldest"]}
    assert 0 < rows.count() < n_all
