"""`slimboard run` with a clock on its measuring: what `python -m benchmarks.measuring` starts once for each figure.

It imports the command line as the console script does, so that fresh processes inherit the same `__main__`.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

try:
    from app.cli import main as cli
except ImportError:  # a checkout from before app/ had packages
    from app import cli  # type: ignore[attr-defined, no-redef]

ARTIFACT = "core.artifacts.artifact" if find_spec("core.artifacts") else "core.artifact"
WHOLE = "anything else"
PARTS = {  # part -> functions whose time it is, less that of other parts inside them
    "load": [(ARTIFACT, "load_models")],
    "score": [("core.measure.score", "evaluate"), ("core.measure.score", "interval"), ("core.measure.score", "paired")],
    "count": [("core.measure.compute", "count")],
    "memory and reload": [("core.measure.memory", "reload")],
    "latency: rounds": [("core.measure.latency", "_rounds")],
    "latency: the rest": [("core.measure.latency", "measure")],
    WHOLE: [("core.measure.stage", "StageMeasurer.measure")],
}


class Clock:
    """Wall and CPU seconds of each part, of one stage after another."""

    def __init__(self) -> None:
        self.stages: list[dict[str, list[float]]] = []
        self.open: list[list[float]] = []  # [wall, CPU] spent inside calls of parts that are open

    def watch(self, part: str, module: str, name: str) -> None:
        """Replace a function by one whose calls are counted as `part`."""
        owner = __import__(module, fromlist=["_"])
        *path, attribute = name.split(".")
        for step in path:
            owner = getattr(owner, step)
        setattr(owner, attribute, self._watched(part, getattr(owner, attribute)))

    def _watched(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **settings: Any) -> Any:
            if part == WHOLE:
                self.stages.append({})
            elif not self.open:
                return function(*args, **settings)  # not of a measurement
            before = _seconds()
            self.open.append([0.0, 0.0])
            try:
                return function(*args, **settings)
            finally:
                total = [now - then for now, then in zip(_seconds(), before, strict=True)]
                inside = self.open.pop()
                spent = self.stages[-1].setdefault(part, [0.0, 0.0])
                for i in range(2):
                    spent[i] += total[i] - inside[i]
                    if self.open:
                        self.open[-1][i] += total[i]

        return call


def _seconds() -> list[float]:
    """Wall-clock time, and CPU time of this process, its children and those that they have waited for."""
    busy = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        busy += times.user + times.system + times.children_user + times.children_system
    return [time.perf_counter(), busy]


def main() -> None:
    """Run `slimboard run` on the recipe in the first argument; the second is the file for the seconds."""
    recipe, target = sys.argv[1:]
    clock = Clock()
    for part, functions in PARTS.items():
        for module, name in functions:
            clock.watch(part, module, name)
    sys.argv = ["slimboard", "run", recipe, "--json"]
    try:
        cli.main()
    finally:
        Path(target).write_text(json.dumps(clock.stages))


if __name__ == "__main__":
    main()
