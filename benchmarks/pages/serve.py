"""Stores full of runs and the servers that show them, of the checkout on PYTHONPATH; started by `benchmarks.pages`.

    python serve.py FOLDER CASES     (CASES: a JSON list of {"name", "page", "runs", "one_task"})

It prints {name: {"url", "process", "points"}}, then records a run with its stages in every store at each line of its
input, as a worker would meanwhile, and prints "recorded". `FOLDER/compared.json` lists the runs of the compare page.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sqlalchemy import select, update

from core.store import engine
from core.store.models import Run, RunStage, RunStatus, Stage
from tests import factories

try:
    from app.local.stack import ROOT, make_front_end_command
    from core.artifacts.store import MANIFEST, ArtifactStore
except ImportError:  # a checkout from before app/ and core/ had packages
    from core.artifact_store import MANIFEST, ArtifactStore  # type: ignore[import-not-found, no-redef]

    from app.local import ROOT, make_front_end_command  # type: ignore[attr-defined, no-redef]

EMPTY = 'import streamlit as st\nst.set_page_config(layout="wide")\nst.markdown("Nothing here.")\n'
EXAMPLES = "examples.safetensors"
COMPARED = 100  # runs


def main() -> None:
    """Serve until the input ends."""
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    folder.mkdir()
    with ExitStack() as stack:
        homes = {contents: folder / str(i) for i, contents in enumerate(dict.fromkeys(map(_contents, cases)))}
        points = {contents: _fill(home, *contents) for contents, home in homes.items()}
        served = {
            contents: stack.enter_context(serve(make_front_end_command, home)) for contents, home in homes.items()
        }
        empty = stack.enter_context(serve(_empty_page(folder / "empty"), folder / "empty"))
        opened: dict[str, dict[str, Any]] = {"": {"url": empty[0], "process": empty[1], "points": 0}}
        for case in cases:
            (url, process), query = served[_contents(case)], ""
            if case["page"] == "compare":
                runs = _runs_to_compare(homes[_contents(case)])
                query = "?runs=" + ",".join(map(str, runs))
                (folder / "compared.json").write_text(json.dumps([_described(*run) for run in runs.items()]))
            counted = points[_contents(case)]
            opened[case["name"]] = {"url": f"{url}/{case['page']}{query}", "process": process, "points": counted}
        print(json.dumps(opened), flush=True)
        for _ in sys.stdin:
            _record_stages(list(homes.values()))
            print("recorded", flush=True)


def _contents(case: dict[str, Any]) -> tuple[int, bool]:
    return case["runs"], case["one_task"]


def _fill(home: Path, runs: int, one_task: bool) -> int:
    """Make a store, and say how many points it holds; with `one_task` a single chart shows them all."""
    home.mkdir()
    url = f"sqlite:///{home / 'slimboard.db'}"
    engine.upgrade(url)
    print(f"filling a store with {runs:,} runs ...", file=sys.stderr, flush=True)
    with engine.session(url) as s:
        factories.fill_store(s, runs)
        if one_task:
            of_text = {"task": "builtin:digits", "score": Stage.score + 90, "higher_is_better": True}
            s.execute(update(Stage).where(~Stage.higher_is_better).values(of_text))
            s.execute(update(Stage).values(task="builtin:digits", task_hash="0" * 64, score_unit="%"))
    with engine.read_session(url) as s:
        points = s.query(Stage).filter(Stage.trained).count()
    engine.engine(url).dispose()
    return points


def _runs_to_compare(home: Path) -> dict[int, Stage]:
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


def _described(run_id: int, stage: Stage) -> dict[str, Any]:
    return {
        "name": f"run {run_id}",
        "params": {"model": stage.model, "task": stage.task, "label": stage.label, **stage.settings},
        "metrics": {name: getattr(stage, name) for name in ("score", "size_bytes", "macs", "parameters")},
    }


def _record_stages(homes: list[Path]) -> None:
    for home in homes:
        with engine.session(f"sqlite:///{home / 'slimboard.db'}") as s:
            factories.fill_store(s, 20, seed=int(time.time()))


def _empty_page(folder: Path) -> Callable[[str, int], list[str]]:
    folder.mkdir()
    script = folder / "empty.py"
    script.write_text(EMPTY)

    def command(host: str, port: int) -> list[str]:
        return [*make_front_end_command(host, port)[:4], str(script), *make_front_end_command(host, port)[5:]]

    return command


@contextmanager
def serve(
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


if __name__ == "__main__":
    main()
