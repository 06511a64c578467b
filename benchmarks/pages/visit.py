"""Visits of pages in Chromium: how long until they are painted, and the processor time that they take."""

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import BrowserContext, sync_playwright

from tests import chromium

WATCH = """
const wanted = %s;
const there = (selector) => {
  const box = document.querySelector(selector)?.getBoundingClientRect();
  return box && box.width > 0 && box.height > 0;
};
const look = () => {
  if (wanted.every(there)) requestAnimationFrame((now) => { window.painted = now; });
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""  # milliseconds from the start of the navigation to the frame after the one that has all that is wanted


@dataclass(frozen=True)
class Page:
    """An address, the process that serves it, and selectors of what has to be painted."""

    url: str
    process: int
    painted: Sequence[str] = ('[data-testid="stMarkdownContainer"]',)


@dataclass(frozen=True)
class Visit:
    """Milliseconds until the page was painted, and of processor time: the server's, and the page's main thread's."""

    painted: float
    server: float
    page: float


def median(visits: Sequence[Visit], quantity: str = "painted") -> float:
    """The median of a quantity over visits of one page, in milliseconds."""
    return statistics.median(getattr(visit, quantity) for visit in visits)


@contextmanager
def open_browser(profile: Path) -> Iterator[BrowserContext]:
    """Chromium with a profile in a folder, as users have it."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium.find(), args=arguments, viewport={"width": 1440, "height": 1000}
        )
        yield context
        context.close()


def visit(browser: BrowserContext, opened: Page) -> Visit:
    """Open a page in a new tab until it is painted."""
    page = browser.new_page()
    page.add_init_script(WATCH % json.dumps(opened.painted))
    devtools = browser.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = _processor_time(opened.process)
    page.goto(opened.url, wait_until="commit")
    page.wait_for_function("window.painted", timeout=120_000, polling=100)
    after = _processor_time(opened.process)
    metrics = {row["name"]: row["value"] for row in devtools.send("Performance.getMetrics")["metrics"]}
    taken = page.evaluate("window.painted")
    page.close()
    return Visit(taken, 1000 * (after - before), 1000 * metrics["TaskDuration"])


def _processor_time(process: int) -> float:
    """Seconds that a server and the processes that it started have computed."""
    server = psutil.Process(process)
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return sum(time.user + time.system for time in times)
