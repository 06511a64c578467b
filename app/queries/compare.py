"""Queries of the Compare page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from app.queries import artifacts
from app.queries.cache import cached
from app.text import stage_references
from core.measured import Comparison
from core.store import comparison, curves
from core.store.comparison import ComparedItem
from core.store.engine import read_session

LIVE = 5  # seconds: runs may still execute
KEPT = 3600  # seconds: a stage's results do not change


@cached(ttl=LIVE)
def load_items(project_id: int, text: str) -> pd.DataFrame:
    """One row per item found, in order: columns of `load_compared_stages`, and `item`, its short name."""
    items = stage_references.parse(text)
    with read_session() as s:
        rows = [row._asdict() for row in comparison.load_compared_stages(s, project_id, items)]
    by_place = {(row["run_id"], row["position"]): row for row in rows}
    last = {row["run_id"]: row for row in rows}
    found = [(item, by_place.get((item.run_id, item.position)) or _last(last, item)) for item in items]
    return pd.DataFrame([{**row, "item": stage_references.name(item)} for item, row in found if row is not None])


def _last(last: dict[int, dict[str, object]], item: ComparedItem) -> dict[str, object] | None:
    return last.get(item.run_id) if item.position is None else None


@cached(ttl=LIVE)
def load_latencies(run_stages: tuple[tuple[int, int], ...]) -> pd.DataFrame:
    """The latencies of these (run, stage) pairs."""
    with read_session() as s:
        return pd.DataFrame([row._asdict() for row in comparison.load_compared_latencies(s, run_stages)])


@cached(ttl=KEPT)
def load_layers(stage_ids: tuple[int, ...]) -> dict[int, list[dict[str, object]]]:
    """Per-layer results by stage."""
    with read_session() as s:
        return comparison.load_details(s, stage_ids)


@cached(ttl=LIVE)
def load_curve_names(run_ids: tuple[int, ...]) -> pd.DataFrame:
    """The curves of runs: run_id, curve, n_points."""
    with read_session() as s:
        rows = [(row.run_id, row.curve, row.n_points) for row in curves.list_curves(s, run_ids)]
    return pd.DataFrame(rows, columns=["run_id", "curve", "n_points"])


def load_against(items: pd.DataFrame, base: Mapping[str, Any]) -> dict[str, Comparison | str]:
    """The comparisons of the items with the first one, the base, by short name, or why there is none."""
    return {
        row["item"]: load_paired(base["score_name"], row["key"], base["key"])
        if row["task_hash"] == base["task_hash"]
        else "different data"
        for row in items.iloc[1:].to_dict("records")
    }


@cached(ttl=KEPT, max_entries=5000)
def load_paired(score: str, key: str, base_key: str) -> Comparison | str:
    """The paired comparison of a stage's score with the base's on the same examples, or why there is none."""
    return artifacts.pair_scores(score, key, base_key)
