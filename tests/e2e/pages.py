"""What tests do on every page: open it, see that it is there, and find what belongs to its settings."""

import re

from playwright.sync_api import Locator, Page, expect

SLOW = 60_000  # milliseconds, for a page's first visit


def see(page: Page, heading: str) -> None:
    """Wait for the page of this heading."""
    expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible(timeout=SLOW)


def open_page(page: Page, url: str, heading: str) -> None:
    """Open an address and wait for the page of this heading."""
    page.goto(url)
    see(page, heading)


def menu(page: Page, label: str) -> Locator:
    """The button of a setting's menu, which says what is chosen."""
    return page.get_by_role("button", name=re.compile(f"^{label}:"))
