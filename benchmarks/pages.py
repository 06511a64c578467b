"""How long pages take in Chromium above an empty Streamlit page, with many runs in the store.

    python -m benchmarks.pages [--repeats 5] [--save]

Every page is served by a server of its own and opened in turn, in one browser whose cache is warm; a time is from
the address to the page's last element being painted. Runs and points are read anew each time: visits lie further apart
than the list of runs is cached, and a stage is recorded before each visit of the trade-offs. What filters and pickers
offer is cached for 30 s.
"""

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright
from sqlalchemy import update

from app import local
from core.store import engine
from core.store.models import Stage
from tests import chromium, factories

RESULT = Path(__file__).with_name("results") / "pages.txt"
EMPTY = 'import streamlit as st\nst.set_page_config(layout="wide")\nst.markdown("Nothing here.")\n'
APART = 2.2  # seconds between two visits of a page: what changes while runs execute is cached for two


@dataclass(frozen=True)
class Case:
    """A page with what is in its store, and how many milliseconds above the empty page it may take."""

    name: str
    runs: int
    path: str
    painted: str  # selector of what is painted last
    target_ms: float
    one_task: bool = False


CASES = (
    Case("runs, 10,000 in the store", 10_000, "runs", '[data-testid="stDataFrame"] canvas', 300),
    Case("runs, 100,000 in the store", 100_000, "runs", '[data-testid="stDataFrame"] canvas', 800),
    Case("trade-offs, 100,000 points", 100_000, "", '[data-testid="stDataFrame"] canvas', 1000, one_task=True),
)


def main() -> None:
    """Measure, print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name} too")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slim-pages-")))
        urls = {"": stack.enter_context(_empty(folder / "empty"))}
        sizes = {}
        for number, case in enumerate(CASES):
            home = folder / str(number)
            sizes[case.name] = _fill(home, case)
            urls[case.name] = stack.enter_context(_served(local.front_end_command, home))
        times = _measure(urls, [folder / str(number) for number in range(len(CASES))], arguments.repeats)
    table = _table(times, sizes)
    print(table)
    if arguments.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table + "\n")


def _fill(home: Path, case: Case) -> int:
    """Make a store, and say how many points it holds."""
    home.mkdir()
    url = f"sqlite:///{home / 'slimboard.db'}"
    engine.upgrade(url)
    print(f"filling a store with {case.runs:,} runs ...", file=sys.stderr, flush=True)
    with engine.session(url) as s:
        factories.fill_store(s, case.runs)
        if case.one_task:  # all points on one chart
            of_text = {"task": "builtin:digits", "score": Stage.score + 90, "higher_is_better": True}
            s.execute(update(Stage).where(~Stage.higher_is_better).values(of_text))
            s.execute(update(Stage).values(task="builtin:digits", task_hash="0" * 64, score_unit="%"))
    with engine.read_session(url) as s:
        points = s.query(Stage).filter(Stage.trained).count()
    engine.engine(url).dispose()
    return points


def _measure(urls: dict[str, str], homes: list[Path], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each visit, page by page in turn; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in urls}
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        for turn in range(repeats + 1):
            _record_stages(homes)
            began = time.monotonic()
            for name, url in urls.items():
                taken = _visit(context, url, next((case for case in CASES if case.name == name), None))
                if turn:
                    times[name].append(taken)
            time.sleep(max(0.0, APART - (time.monotonic() - began)))
        browser.close()
    return times


def _record_stages(homes: list[Path]) -> None:
    """Add a run with its stages to every store, as a worker would meanwhile."""
    for home in homes:
        with engine.session(f"sqlite:///{home / 'slimboard.db'}") as s:
            factories.fill_store(s, 20, seed=int(time.time()))


def _visit(context: BrowserContext, url: str, case: Case | None) -> float:
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"{url}/{case.path if case else ''}", wait_until="commit")
    if case is None:
        page.get_by_text("Nothing here.").wait_for(timeout=120_000)
    else:
        _wait_for(page, case)
    taken = 1000 * (time.perf_counter() - start)
    page.close()
    return taken


def _wait_for(page: Page, case: Case) -> None:
    if case.one_task:
        page.locator('[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg').first.wait_for(
            timeout=120_000
        )
    page.locator(case.painted).first.wait_for(timeout=120_000)


@contextmanager
def _empty(folder: Path) -> Iterator[str]:
    folder.mkdir()
    script = folder / "empty.py"
    script.write_text(EMPTY)

    def command(host: str, port: int) -> list[str]:
        return [*local.front_end_command(host, port)[:4], str(script), *local.front_end_command(host, port)[5:]]

    with _served(command, folder) as url:
        yield url


@contextmanager
def _served(command: Callable[[str, int], list[str]], home: Path) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIMBOARD_")}
    environment |= {"SLIMBOARD_HOME": str(home), "PYTHONPATH": str(local.ROOT)}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command("127.0.0.1", port), cwd=local.ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _table(times: dict[str, list[float]], points: dict[str, int]) -> str:
    empty = statistics.median(times[""])
    load = os.getloadavg()[0]
    lines = [
        f"Medians of {len(times[''])} interleaved visits, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {load:.1f} (above the cores: others used the machine, times are too long)",
        f"{'page':30} {'points':>9} {'median':>9} {'best':>9} {'above empty':>12} {'best above':>11} {'target':>8}",
        f"{'empty Streamlit page':30} {'':>9} {empty:7.0f}ms {min(times['']):7.0f}ms",
    ]
    for case in CASES:
        mine = times[case.name]
        median = statistics.median(mine)
        lines.append(
            f"{case.name:30} {points[case.name]:9,} {median:7.0f}ms {min(mine):7.0f}ms {median - empty:10.0f}ms "
            f"{min(mine) - min(times['']):9.0f}ms {case.target_ms:6.0f}ms"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
