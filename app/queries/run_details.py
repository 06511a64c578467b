"""Queries of the Run page: one run, its stages, curves, log and notes."""

import json
from typing import Any

import pandas as pd

from app.queries import artifacts
from app.queries.cache import cached
from core.quantities import measured_values
from core.store import curves, events, runs, stages, waiting
from core.store.engine import read_session
from core.store.models import RunStatus

LIVE = 1  # seconds: what changes while a run executes
KEPT = 600  # seconds: what a stage leaves does not change


@cached(ttl=LIVE)
def load_run(run_id: int, project_id: int) -> dict[str, Any] | None:
    """A run of this project: its columns, `owner`, `worker`, the worker's `hardware`, tags, and `now`; else None."""
    with read_session() as s:
        found = runs.run_details(s, run_id)
        if found is None or found.Run.project_id != project_id:
            return None
        columns = {column.key: getattr(found.Run, column.key) for column in found.Run.__table__.columns}
        joined = {name: getattr(found, name) for name in ("owner", "worker", "hardware", "now")}
        environment = dict(columns["environment"])
        elsewhere = environment.pop("worker", None)  # of an imported run
        if elsewhere is not None:
            joined |= {"worker": elsewhere["name"], "hardware": elsewhere["hardware"]}
        return {**columns, "environment": environment, **joined, "tags": runs.list_tags(s, run_id)}


@cached(ttl=LIVE)
def load_waiting(run_id: int) -> str:
    """What a queued run is waiting for, besides its turn; empty if an active worker can take it."""
    with read_session() as s:
        return waiting.find_waiting(s, [run_id], seen_within=60.0).get(run_id, "")


@cached(ttl=LIVE)
def load_stages(run_id: int) -> pd.DataFrame:
    """A run's stages in order: columns of the stage, its quantities, its position in the run and its artifact."""
    with read_session() as s:
        rows = [
            {
                **_columns(row.Stage),
                **_columns(row.RunStage),
                **measured_values(row.Stage, row.RunStage),
                "stage_id": row.Stage.id,
                "artifact_bytes": row.Artifact.bytes if row.Artifact else None,
                **{f"reference_{name}": getattr(row, f"reference_{name}") for name in ("size_bytes", "macs", "score")},
            }
            for row in stages.list_run_stages(s, run_id)
        ]
    return pd.DataFrame(rows)


@cached(ttl=LIVE)
def load_latencies(run_id: int) -> pd.DataFrame:
    """A run's latencies: every column of `latency`, and the stage's position."""
    with read_session() as s:
        return pd.DataFrame([row._asdict() for row in stages.list_latencies(s, [run_id])])


@cached(ttl=LIVE)
def load_curves(run_id: int) -> list[tuple[str, int]]:
    """(name, number of points) of a run's curves; a name is "<position>/<name>"."""
    with read_session() as s:
        return [(row.curve, row.n_points) for row in curves.list_curves(s, [run_id])]


@cached(ttl=LIVE)
def load_curve(run_id: int, curve: str, most: int = 500) -> pd.DataFrame:
    """A curve in at most `most` rows: step, value (the bucket's mean), low and high."""
    with read_session() as s:
        rows = [row._asdict() for row in curves.read_curve(s, run_id, curve, most)]
    return pd.DataFrame(rows).rename(columns={"mean": "value"}).astype({"value": float})


@cached(ttl=LIVE)
def load_log(run_id: int, levels: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
    """The last log lines at these levels, oldest first: at, level, attempt, message."""
    with read_session() as s:
        return [row._asdict() for row in events.load_last_events(s, run_id, limit, levels)]


@cached(ttl=LIVE)
def load_notes(run_id: int) -> list[dict[str, Any]]:
    """A run's notes, oldest first: text, author, created_at."""
    with read_session() as s:
        return [row._asdict() for row in runs.list_notes(s, run_id)]


@cached(ttl=KEPT, waiting="Reading the artifact …", max_entries=50)
def load_regressions(key: str, reference_key: str) -> list[dict[str, Any]] | None:
    """Inputs that a stage gets wrong and its reference right, the worst first; None if they cannot be read."""
    try:
        folder = artifacts.open_shown(key)
        items: list[dict[str, Any]] = json.loads((folder / f"mistakes-{reference_key}.json").read_text())
    except (FileNotFoundError, ValueError):  # not kept, or damaged
        return None
    return items


def is_unfinished(run: dict[str, Any]) -> bool:
    """Whether a run is queued or running."""
    return run["status"] in (RunStatus.QUEUED, RunStatus.RUNNING)


def forget() -> None:
    """Clear cached results after the user's own action."""
    for read in (load_run, load_waiting, load_notes):
        read.clear()


def _columns(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
