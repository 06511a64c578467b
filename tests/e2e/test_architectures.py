"""The survey of architectures in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from core.complexity.report import load_shipped
from tests.e2e.pages import SLOW

pytestmark = pytest.mark.browser


def test_the_survey_is_drawn_and_another_quantity_chosen(page, server):
    page.goto(f"{server.url}/")
    page.get_by_role("link", name="Architectures").click(timeout=SLOW)
    expect(page.get_by_role("heading", name="Architectures", exact=True)).to_be_visible(timeout=SLOW)
    chart = page.get_by_test_id("stVegaLiteChart")
    expect(chart.locator("canvas, svg").first).to_be_visible(timeout=SLOW)
    rows = page.get_by_test_id("stTable").get_by_role("row")
    expect(rows).to_have_count(1 + len(load_shipped().architectures))
    expect(rows.nth(1)).to_contain_text(re.compile(r"full attention.*T\^\d"))
    link = rows.nth(1).get_by_role("link", name="full attention")
    expect(link).to_have_attribute("href", "https://arxiv.org/abs/1706.03762")
    before = chart.screenshot()
    page.get_by_role("radio", name="State while decoding").click()
    expect(page.get_by_role("radio", name="State while decoding")).to_be_checked()
    page.wait_for_timeout(2000)
    assert chart.screenshot() != before
