"""The table of runs in words. Pure: rows in, frame out."""

import time
from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from core.store.models import RunStatus

STATUS_COLOURS = {
    "queued": "gray",
    "running": "blue",
    "stopping": "orange",
    "done": "green",
    "failed": "red",
    "cancelled": "orange",
}
COLUMNS = {
    "Run": st.column_config.LinkColumn(display_text=r"run=(\d+)", width=60),
    "Status": st.column_config.MultiselectColumn(
        options=list(STATUS_COLOURS), color=list(STATUS_COLOURS.values()), width=100
    ),
    "Name": st.column_config.TextColumn(width=190),
    "Recipe": st.column_config.TextColumn(width=210),
}


def table(runs: list[dict[str, Any]], now: float | None = None) -> pd.DataFrame:
    """A line a run: what it is, how it stands, and what its last stage came to."""
    at = time.time() if now is None else now
    return pd.DataFrame([_row(run, at) for run in runs])


def _row(run: dict[str, Any], now: float) -> dict[str, Any]:
    last = run["last"]
    return {
        "Run": f"run?run={run['id']}",
        "Status": [_status(run)],
        "Name": run["name"] or formats.NOTHING,
        "Recipe": run["recipe"],
        "Last stage": _outcome(run),
        "Size": _size(last) if last else formats.NOTHING,
        "Score": _score(last) if last else formats.NOTHING,
        "Model": run["model"],
        "Task": run["task"],
        "Owner": run["owner"],
        "Submitted": formats.ago(run["created_at"], now),
        "Duration": formats.duration((run["ended_at"] or now) - run["started_at"])
        if run["started_at"]
        else formats.NOTHING,
    }


def _status(run: dict[str, Any]) -> str:
    if run["status"] == RunStatus.RUNNING and run["cancel_requested"]:
        return "stopping"
    return str(run["status"].value)


def _outcome(run: dict[str, Any]) -> str:
    """Why it failed, how far it is, or its last stage's label."""
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
