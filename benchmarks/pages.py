"""How long pages take in Chromium above an empty Streamlit page, with many runs in the store.

    python -m benchmarks.pages [--repeats 5] [--mlflow PYTHON] [--save]

Every page is served by a server of its own and opened in turn, in one browser with a profile, as users have it (private
windows take longer for every page, the empty one too), whose cache is warm; a time is from the address to the page's
last element being painted. Visits lie further apart than the list of runs is cached. A stage is recorded before each
visit of the trade-offs, but for those "again". Points are read anew as a whole once 128 stages were recorded since,
which one visit in five waits for and the medians do not show; the others read what is new. With --mlflow, an
interpreter that has MLflow, its page that compares the same hundred runs is visited too: until the table is painted,
its chart not waited for. Beside the times stand processor times, which others on the machine lengthen less.
"""

import argparse
import json
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from playwright.sync_api import BrowserContext, sync_playwright
from safetensors.numpy import save_file
from sqlalchemy import select, update

from app.local.stack import ROOT, front_end_command
from core.artifacts.store import MANIFEST, ArtifactStore
from core.store import engine
from core.store.models import Run, RunStage, RunStatus, Stage
from tests import chromium, factories

RESULT = Path(__file__).with_name("results") / "pages.txt"
EMPTY = 'import streamlit as st\nst.set_page_config(layout="wide")\nst.markdown("Nothing here.")\n'
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
EXAMPLES = "examples.safetensors"
APART = 2.2  # seconds between two visits of a page: what changes while runs execute is cached for two


@dataclass(frozen=True)
class Contents:
    """What is in a store: how many runs, and whether all their stages are drawn on one chart."""

    runs: int
    one_task: bool = False


@dataclass(frozen=True)
class Case:
    """A page over a store, and how many milliseconds above the empty page it may take."""

    name: str
    contents: Contents
    page: str
    target_ms: float
    charts: bool = False


@dataclass(frozen=True)
class Visit:
    """Milliseconds until the page was painted, and of processor time: the server's, and the page's main thread's."""

    painted: float
    server: float
    page: float


CASES = (
    Case("runs, 10,000 in the store", Contents(10_000), "runs", 300),
    Case("runs, 100,000 in the store", Contents(100_000, one_task=True), "runs", 800),
    Case("trade-offs, 10,000 runs", Contents(10_000), "", 500, charts=True),
    Case("trade-offs, 10,000 runs, again", Contents(10_000), "", 500, charts=True),
    Case("trade-offs, 100,000 points", Contents(100_000, one_task=True), "", 1000, charts=True),
    Case("trade-offs, 100,000 points, again", Contents(100_000, one_task=True), "", 1000, charts=True),
    Case("compare, 100 of 10,000 runs", Contents(10_000), "compare", 1000, charts=True),
)
COMPARED = 100
MLFLOW = f"MLflow, compare of the same {COMPARED}"


def main() -> None:
    """Measure, print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mlflow", metavar="PYTHON", help="an interpreter with MLflow, whose page is timed too")
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name} too")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slim-pages-")))
        empty, empty_server = stack.enter_context(_empty(folder / "empty"))
        opened = {"": Opened(empty, empty_server)}
        homes = {contents: folder / str(number) for number, contents in enumerate({c.contents: 0 for c in CASES})}
        sizes = {contents: _fill(home, contents) for contents, home in homes.items()}
        served = {contents: stack.enter_context(_served(front_end_command, home)) for contents, home in homes.items()}
        for case in CASES:
            url, server = served[case.contents]
            query = "?runs=" + ",".join(map(str, _to_compare(homes[case.contents]))) if case.page == "compare" else ""
            opened[case.name] = Opened(f"{url}/{case.page}{query}", server, _painted_last(case))
            if arguments.mlflow and query:
                opened[MLFLOW] = stack.enter_context(_mlflow(arguments.mlflow, folder, homes[case.contents]))
        visits = _measure(opened, list(homes.values()), folder / "profile", arguments.repeats)
    table = _table(visits, sizes, load)
    print(table)
    if arguments.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table + "\n")


@dataclass(frozen=True)
class Opened:
    """An address, the process that serves it, and selectors of what has to be painted."""

    url: str
    server: int
    painted: Sequence[str] = ('[data-testid="stMarkdownContainer"]',)


def _fill(home: Path, contents: Contents) -> int:
    """Make a store, and say how many points it holds."""
    home.mkdir()
    url = f"sqlite:///{home / 'slimboard.db'}"
    engine.upgrade(url)
    print(f"filling a store with {contents.runs:,} runs ...", file=sys.stderr, flush=True)
    with engine.session(url) as s:
        factories.fill_store(s, contents.runs)
        if contents.one_task:  # all points on one chart
            of_text = {"task": "builtin:digits", "score": Stage.score + 90, "higher_is_better": True}
            s.execute(update(Stage).where(~Stage.higher_is_better).values(of_text))
            s.execute(update(Stage).values(task="builtin:digits", task_hash="0" * 64, score_unit="%"))
    with engine.read_session(url) as s:
        points = s.query(Stage).filter(Stage.trained).count()
    engine.engine(url).dispose()
    return points


def _to_compare(home: Path) -> dict[int, Stage]:
    """Runs of one task and their last stages, whose results by example are put where the page looks for them."""
    with engine.read_session(f"sqlite:///{home / 'slimboard.db'}") as s:
        query = (
            select(RunStage.run_id, Stage)
            .join(Stage, Stage.id == RunStage.stage_id)
            .join(Run, Run.id == RunStage.run_id)
            .where(Run.status == RunStatus.DONE, Stage.task == "builtin:digits")
            .order_by(RunStage.run_id, RunStage.position)
        )
        last = {row.run_id: row.Stage for row in s.execute(query)}
        s.expunge_all()
    chosen = dict(list(last.items())[:COMPARED])
    store = ArtifactStore(str(home / "artifacts"), home / "artifacts")
    drawn = np.random.default_rng(0)
    for key in {stage.key for stage in chosen.values()}:
        if not store.has(key):
            with store.writing(key) as folder:
                save_file({"correct": drawn.random(2000) < 0.95}, folder / EXAMPLES)
                (folder / MANIFEST).write_text("{}")
    return chosen


@contextmanager
def _mlflow(python: str, folder: Path, home: Path) -> Iterator[Opened]:
    """MLflow's server over the runs that the Compare page shows, and its page that compares them."""
    rows = [
        {
            "name": f"run {run_id}",
            "params": {"model": stage.model, "task": stage.task, "label": stage.label, **stage.settings},
            "metrics": {name: getattr(stage, name) for name in ("score", "size_bytes", "macs", "parameters")},
        }
        for run_id, stage in _to_compare(home).items()
    ]
    (folder / "runs.json").write_text(json.dumps(rows))
    store = f"sqlite:///{folder / 'mlflow.db'}"
    written = subprocess.run(
        [python, Path(__file__).with_name("peers") / "mlflow_runs.py", store, folder / "runs.json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ids = json.loads(written.stdout.splitlines()[-1])

    def command(host: str, port: int) -> list[str]:
        server = [python, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        return [*server, "--host", host, "--port", str(port), "--default-artifact-root", str(folder / "mlflow")]

    (folder / "mlflow").mkdir()
    with _served(command, folder / "mlflow", health="health") as (url, server):
        query = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(['0']))}"
        yield Opened(f"{url}/#/compare-runs?{query}", server, ["table.mlflow-compare-table"])


def _measure(opened: dict[str, Opened], homes: list[Path], profile: Path, repeats: int) -> dict[str, list[Visit]]:
    """Each visit, page by page in turn; the first round warms up and does not count."""
    visits: dict[str, list[Visit]] = {name: [] for name in opened}
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium.find(), args=arguments, viewport={"width": 1440, "height": 1000}
        )
        for turn in range(repeats + 1):
            _record_stages(homes)
            began = time.monotonic()
            for name, page in opened.items():
                visit = _visit(context, page)
                if turn:
                    visits[name].append(visit)
            time.sleep(max(0.0, APART - (time.monotonic() - began)))
        context.close()
    return visits


def _record_stages(homes: list[Path]) -> None:
    """Add a run with its stages to every store, as a worker would meanwhile."""
    for home in homes:
        with engine.session(f"sqlite:///{home / 'slimboard.db'}") as s:
            factories.fill_store(s, 20, seed=int(time.time()))


def _visit(context: BrowserContext, opened: Opened) -> Visit:
    page = context.new_page()
    page.add_init_script(WATCH % json.dumps(opened.painted))
    devtools = context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = _processor_time(opened.server)
    page.goto(opened.url, wait_until="commit")
    page.wait_for_function("window.painted", timeout=120_000, polling=100)
    after = _processor_time(opened.server)
    metrics = {row["name"]: row["value"] for row in devtools.send("Performance.getMetrics")["metrics"]}
    taken = page.evaluate("window.painted")
    page.close()
    return Visit(taken, 1000 * (after - before), 1000 * metrics["TaskDuration"])


def _processor_time(pid: int) -> float:
    """Seconds that a server and the processes that it started have computed."""
    server = psutil.Process(pid)
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _painted_last(case: Case) -> list[str]:
    table = '[data-testid="stBidiComponentIsolated"]'
    chart = '[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg'
    return [chart, table] if case.charts else [table]


@contextmanager
def _empty(folder: Path) -> Iterator[tuple[str, int]]:
    folder.mkdir()
    script = folder / "empty.py"
    script.write_text(EMPTY)

    def command(host: str, port: int) -> list[str]:
        return [*front_end_command(host, port)[:4], str(script), *front_end_command(host, port)[5:]]

    with _served(command, folder) as served:
        yield served


@contextmanager
def _served(
    command: Callable[[str, int], list[str]], home: Path, health: str = "_stcore/health"
) -> Iterator[tuple[str, int]]:
    """Address and process of a server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIMBOARD_")}
    environment |= {"SLIMBOARD_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command("127.0.0.1", port), cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(f"{url}/{health}")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _table(visits: dict[str, list[Visit]], points: dict[Contents, int], load: float) -> str:
    empty = visits[""]
    lines = [
        f"{len(empty)} interleaved visits, medians of ms, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {load:.1f} before (of others, which make times too long)",
        f"{'page':36} {'points':>9} {'painted':>8} {'above empty':>12} {'best above':>11} {'target':>7} "
        f"{'server CPU':>11} {'page CPU':>9}",
        _line("empty Streamlit page", empty, f"{'':9}", f"{'':12} {'':11} {'':7}"),
    ]
    for case in CASES:
        mine = visits[case.name]
        above = statistics.median(v.painted for v in mine) - statistics.median(v.painted for v in empty)
        best = min(v.painted for v in mine) - min(v.painted for v in empty)
        counted = f"{points[case.contents]:9,}"
        lines.append(_line(case.name, mine, counted, f"{above:12.0f} {best:11.0f} {case.target_ms:7.0f}"))
    if MLFLOW in visits:
        lines.append(_line(MLFLOW, visits[MLFLOW], f"{'':9}", f"{'':12} {'':11} {'':7}"))
        ours, theirs = (
            statistics.median(v.painted for name, found in visits.items() if name.startswith(start) for v in found)
            for start in ("compare", "MLflow")
        )
        lines.append(f"MLflow's page takes {theirs / ours:.2f} times as long as ours")
    return "\n".join(lines)


def _line(name: str, visits: list[Visit], points: str, above: str) -> str:
    painted, server, page = (
        statistics.median(getattr(v, field) for v in visits) for field in ("painted", "server", "page")
    )
    return f"{name:36} {points} {painted:8.0f} {above} {server:11.0f} {page:9.0f}"


if __name__ == "__main__":
    main()
