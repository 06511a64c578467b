"""How long pages take in Chromium above an empty Streamlit page, with many runs in the store.

    python -m benchmarks.pages [--repeats 5] [--against FOLDER] [--mlflow PYTHON] [--save]

Every page is served by a server of its own and opened in turn, in one browser with a profile, as users have it (private
windows take longer for every page, the empty one too), whose cache is warm; a time is from the address to the page's
last element being painted. Visits lie further apart than the list of runs is cached. A stage is recorded before each
visit of the trade-offs, but for those "again". Points are read anew as a whole once 128 stages were recorded since,
which one visit in five waits for and the medians do not show; the others read what is new. With --against, the pages of
another checkout are visited in the same turns, over stores that it filled itself. With --mlflow, an interpreter that
has MLflow, its page that compares the same hundred runs is visited too: until the table is painted, its chart not
waited for. Beside the times stand processor times, which others on the machine lengthen less.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import BrowserContext

from benchmarks.pages.serve import COMPARED, serve
from benchmarks.pages.visit import Page, Visit, median, open_browser, visit

HERE = Path(__file__).parents[2]
RESULT = HERE / "benchmarks" / "results" / "pages.txt"
APART = 2.2  # seconds between two visits of a page: what changes while runs execute is cached for two
MLFLOW = f"MLflow, compare of the same {COMPARED}"
Visits = Mapping[str, list[Visit]]  # by case; "" is the empty page


@dataclass(frozen=True)
class Case:
    """A page over a store, and how many milliseconds above the empty page it may take."""

    name: str
    page: str
    runs: int
    target_ms: float
    one_task: bool = False  # a single chart draws all stages
    charts: bool = False


CASES = (
    Case("runs, 10,000 in the store", "runs", 10_000, 300),
    Case("runs, 100,000 in the store", "runs", 100_000, 800, one_task=True),
    Case("trade-offs, 10,000 runs", "", 10_000, 500, charts=True),
    Case("trade-offs, 10,000 runs, again", "", 10_000, 500, charts=True),
    Case("trade-offs, 100,000 points", "", 100_000, 1000, one_task=True, charts=True),
    Case("trade-offs, 100,000 points, again", "", 100_000, 1000, one_task=True, charts=True),
    Case(f"compare, {COMPARED} of 10,000 runs", "compare", 10_000, 1000, charts=True),
)


@dataclass(frozen=True)
class Site:
    """The pages of a checkout, what its stores hold, and how to record a run in each store."""

    pages: dict[str, Page]
    points: dict[str, int]
    record: Callable[[], None]


def main() -> None:
    """Measure, print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, whose pages are visited in the same turns")
    parser.add_argument("--mlflow", metavar="PYTHON", help="an interpreter with MLflow, whose page is timed too")
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name} too")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slimboard-pages-")))
        sites = {"new": stack.enter_context(_site(HERE, folder / "new"))}
        if arguments.against:
            sites["old"] = stack.enter_context(_site(arguments.against.resolve(), folder / "old"))
        if arguments.mlflow:
            sites["new"].pages[MLFLOW] = stack.enter_context(_mlflow(arguments.mlflow, folder))
        browser = stack.enter_context(open_browser(folder / "profile"))
        visits = _measure(browser, sites, arguments.repeats)
    table = "\n".join(_table(visits["new"], sites["new"].points, load) + _ratios(visits))
    print(table)
    if arguments.save:
        RESULT.write_text(table + "\n")


@contextmanager
def _site(checkout: Path, folder: Path) -> Iterator[Site]:
    """The servers of a checkout over stores that it fills."""
    cases = [{"name": c.name, "page": c.page, "runs": c.runs, "one_task": c.one_task} for c in CASES]
    command = [sys.executable, str(Path(__file__).with_name("serve.py")), str(folder), json.dumps(cases)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        sent, answers = process.stdin, process.stdout
        assert sent is not None
        assert answers is not None
        opened = json.loads(answers.readline())
        painted = {case.name: _painted_last(case) for case in CASES}
        pages = {name: Page(at["url"], at["process"], *painted.get(name, ())) for name, at in opened.items()}

        def record() -> None:
            print("record", file=sent, flush=True)
            answers.readline()

        yield Site(pages, {name: at["points"] for name, at in opened.items()}, record)


def _painted_last(case: Case) -> tuple[list[str]]:
    table = '[data-testid="stBidiComponentIsolated"]'
    chart = '[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg'
    return ([chart, table] if case.charts else [table],)


@contextmanager
def _mlflow(python: str, folder: Path) -> Iterator[Page]:
    """MLflow's server over the runs that the Compare page shows, and its page that compares them."""
    store = f"sqlite:///{folder / 'mlflow.db'}"
    script = Path(__file__).with_name("mlflow_runs.py")
    written = subprocess.run(
        [python, script, store, folder / "new" / "compared.json"], capture_output=True, text=True, check=True
    )
    ids = json.loads(written.stdout.splitlines()[-1])

    def command(host: str, port: int) -> list[str]:
        server = [python, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        return [*server, "--host", host, "--port", str(port), "--default-artifact-root", str(folder / "mlflow")]

    (folder / "mlflow").mkdir()
    with serve(command, folder / "mlflow", health="health") as (url, server):
        query = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(['0']))}"
        yield Page(f"{url}/#/compare-runs?{query}", server, ["table.mlflow-compare-table"])


def _measure(browser: BrowserContext, sites: dict[str, Site], repeats: int) -> dict[str, Visits]:
    """Each visit, page by page in turn; the first round warms up and does not count."""
    visits = {site: {name: list[Visit]() for name in sites[site].pages} for site in sites}
    names = list(dict.fromkeys(name for site in sites.values() for name in site.pages))
    for turn in range(repeats + 1):
        for site in sites.values():
            site.record()
        began = time.monotonic()
        for name in names:
            for site in sorted(sites, reverse=turn % 2 == 1):
                if name in sites[site].pages:
                    made = visit(browser, sites[site].pages[name])
                    visits[site][name] += [made] if turn else []
        time.sleep(max(0.0, APART - (time.monotonic() - began)))
    return visits


def _table(visits: Visits, points: dict[str, int], load: float) -> list[str]:
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
        best = min(v.painted for v in mine) - min(v.painted for v in empty)
        above = f"{median(mine) - median(empty):12.0f} {best:11.0f} {case.target_ms:7.0f}"
        lines.append(_line(case.name, mine, f"{points[case.name]:9,}", above))
    if MLFLOW in visits:
        lines.append(_line(MLFLOW, visits[MLFLOW], f"{'':9}", f"{'':12} {'':11} {'':7}"))
        ratio = median(visits[MLFLOW]) / median(visits[CASES[-1].name])
        lines.append(f"MLflow's page takes {ratio:.2f} times as long as ours")
    return lines


def _line(name: str, visits: list[Visit], points: str, above: str) -> str:
    medians = f"{median(visits, 'server'):11.0f} {median(visits, 'page'):9.0f}"
    return f"{name:36} {points} {median(visits):8.0f} {above} {medians}"


def _ratios(visits: dict[str, Visits]) -> list[str]:
    """New above old, where another checkout was visited too."""
    if "old" not in visits:
        return []
    lines = ["", f"{'new / old, of medians':36} {'painted':>8} {'server CPU':>11} {'page CPU':>9}"]
    for name, old in visits["old"].items():
        new = visits["new"][name]
        painted, server, page = (median(new, q) / median(old, q) for q in ("painted", "server", "page"))
        lines.append(f"{name or 'empty Streamlit page':36} {painted:8.2f} {server:11.2f} {page:9.2f}")
    return lines


if __name__ == "__main__":
    main()
