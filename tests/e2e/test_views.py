"""Saved views in real browsers: all of a page's settings come back, in another browser and after a restart."""

import re

import pytest
from playwright.sync_api import Page, expect

from app.local.stack import make_front_end_command
from tests.e2e.conftest import free_port, started
from tests.e2e.pages import SLOW, menu, open_page

pytestmark = pytest.mark.browser


def save(page: Page, name: str) -> None:
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Save the current view as").fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("link", name=name)).to_be_visible()


def another(browser) -> Page:
    """A page of a second browser."""
    return browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()


def expect_limit(page: Page, shown: str) -> None:
    field = page.get_by_label("Size at most (MB)")
    if not field.is_visible():
        page.get_by_text("Filters, limits and conditions").click()
    expect(field).to_have_value(shown)


def test_trade_offs_come_back_in_a_second_browser_whatever_it_showed_before(page, server, browser):
    settings = "most_mb=2.5&families=quantization&log.size_bytes=false&y=Multiply-accumulates"
    open_page(page, f"{server.url}/?{settings}", "Trade-offs")
    expect(page.locator("canvas").first).to_be_visible()
    save(page, "below 2.5 MB")
    second = another(browser)
    open_page(second, f"{server.url}/", "Trade-offs")
    second.get_by_text("Filters, limits and conditions").click()
    second.get_by_label("Latency at most (ms)").fill("7")
    second.get_by_label("Latency at most (ms)").press("Enter")
    second.wait_for_url(re.compile("most_ms=7"))
    second.get_by_role("button", name="Views").click()
    second.get_by_role("link", name="below 2.5 MB").click()
    second.wait_for_url(re.compile("most_mb=2.5"))
    found = dict(part.split("=") for part in second.url.partition("?")[2].split("&"))
    asked = dict(part.split("=") for part in settings.split("&"))
    assert asked.items() <= found.items() and "most_ms" not in found
    expect(menu(second, "Y axis")).to_contain_text("Multiply-accumulates")
    expect_limit(second, "2.5")
    second.context.close()


def test_runs_and_compare_come_back_after_a_restart(page, server, browser):
    open_page(page, f"{server.url}/runs?status=done&model=builtin:gpt&sort=oldest", "Runs")
    shown = page.get_by_text(re.compile(r"\d+ runs?, showing 1 to \d+")).inner_text()
    save(page, "finished gpt")
    open_page(page, f"{server.url}/compare?runs=1,3&show=Settings", "Compare")
    save(page, "one and three")
    port = free_port()
    with started(make_front_end_command("127.0.0.1", port), server.home, port) as url:
        later = another(browser)
        open_page(later, f"{url}/runs", "Runs")
        later.get_by_role("button", name="Views").click()
        later.get_by_role("link", name="finished gpt").click()
        expect(later.get_by_text(shown)).to_be_visible()
        later.wait_for_url(re.compile("sort=oldest"))
        open_page(later, f"{url}/compare", "Compare")
        later.get_by_text("Enter at least two runs").wait_for()
        later.get_by_role("button", name="Views").click()
        later.get_by_role("link", name="one and three").click()
        expect(later.get_by_role("tab", name="Settings")).to_have_attribute("aria-selected", "true")
        expect(later.get_by_label("Runs", exact=True)).to_have_value("1,3")
        later.context.close()


def test_a_click_in_the_tree_opens_the_run(page, server):
    open_page(page, f"{server.url}/provenance?of=1", "Provenance")
    chart = page.get_by_test_id("stVegaLiteChart").locator("canvas")
    expect(chart).to_be_visible()
    page.wait_for_timeout(500)
    box = chart.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 60, box["y"] + box["height"] - 30)  # the last run's line
    page.wait_for_url(re.compile(r"run\?run=\d+"))
    expect(page.get_by_role("tab", name="Stages")).to_be_visible()
    page.locator('a[href*="provenance?of="]').click()  # not the sidebar's, which is drawn before
    page.wait_for_url(re.compile(r"provenance\?of=\d+"))


def test_a_star_given_on_the_run_page_is_found_in_the_list(page, server):
    open_page(page, f"{server.url}/runs?starred=true", "Runs")
    expect(page.get_by_text("No runs match")).to_be_visible()
    page.goto(f"{server.url}/run?run=5")
    page.locator(".st-key-star button").first.click(timeout=SLOW)
    expect(page.locator(".st-key-star")).to_contain_text("⭐")
    open_page(page, f"{server.url}/runs?starred=true", "Runs")
    expect(page.get_by_text("1 run, showing 1 to 1")).to_be_visible()
    expect(page.get_by_text("★ ")).to_be_visible()
