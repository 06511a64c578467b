"""The table of runs as text. Pure: runs in, rows out."""

import time
from collections.abc import Container
from typing import Any

from app.components.row_table import Column, Row
from app.text import formats
from core.store.models import RunStatus

BADGES = (
    ("queued", "gray"),
    ("running", "blue"),
    ("stopping", "orange"),
    ("done", "green"),
    ("failed", "red"),
    ("cancelled", "orange"),
)
COLUMNS = (
    Column("Run", link="run?run="),
    Column("Status", orders=(("status", "ascending"),), colours=BADGES),
    Column("Name", orders=(("name", "ascending"),), wraps=True),
    Column("Recipe", wraps=True),
    Column("Last stage", wraps=True),
    Column("Size", wraps=True),
    Column("Score", wraps=True),
    Column("Model", orders=(("model", "ascending"),)),
    Column("Task", orders=(("task", "ascending"),)),
    Column("Owner", orders=(("owner", "ascending"),)),
    Column("Submitted", orders=(("newest", "descending"), ("oldest", "ascending"))),
    Column("Duration", orders=(("longest", "descending"), ("shortest", "ascending"))),
)


def make_table(runs: list[dict[str, Any]], now: float | None = None, stars: Container[int] = ()) -> list[Row]:
    """One row per run: what it is, its status, and the result of its last stage; runs in `stars` get a star."""
    at = time.time() if now is None else now
    return [Row(run["id"], _cells(run, at, starred=run["id"] in stars)) for run in runs]


def _cells(run: dict[str, Any], now: float, *, starred: bool) -> list[str]:
    last = run["last"]
    name = run["name"] or formats.NOTHING
    return [
        str(run["id"]),
        _status(run),
        f"★ {name}" if starred else name,
        run["recipe"],
        _outcome(run),
        _size(last) if last else formats.NOTHING,
        _score(last) if last else formats.NOTHING,
        run["model"],
        run["task"],
        run["owner"],
        formats.ago(run["created_at"], now),
        formats.duration((run["ended_at"] or now) - run["started_at"]) if run["started_at"] else formats.NOTHING,
    ]


def _status(run: dict[str, Any]) -> str:
    if run["status"] == RunStatus.RUNNING and run["cancel_requested"]:
        return "stopping"
    return str(run["status"].value)


def _outcome(run: dict[str, Any]) -> str:
    """Why it failed, its progress, or its last stage's label."""
    if run["status"] == RunStatus.FAILED and run["failure"]:
        return f"failed: {run['failure'].value}"
    if run["status"] == RunStatus.RUNNING:
        return f"{formats.percent(run['progress'], 0)}, {run['progress_text'] or 'starting'}"
    return run["last"]["label"] if run["last"] else formats.NOTHING


def _size(last: dict[str, Any]) -> str:
    change = formats.size_change(last["size_bytes"], last["reference_size_bytes"])
    return formats.size(last["size_bytes"]) + (f" ({change})" if change else "")


def _score(last: dict[str, Any]) -> str:
    if not last["trained"]:
        return "untrained"
    text = formats.score(last["score"], last["score_unit"])
    delta = last["score_delta"]
    return text if delta is None else f"{text} ({formats.score_change(delta, last['score_unit'])})"
