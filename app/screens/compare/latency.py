"""Latencies for the comparison: only those measured under the same conditions."""

import pandas as pd

from app.text.conditions import condition_name_within


def add_conditions(latencies: pd.DataFrame) -> pd.DataFrame:
    """Latencies from `load_latencies` with `conditions` as text, one per stage of a run and conditions."""
    if latencies.empty:
        return latencies.assign(conditions=[])
    names = [f"{condition_name_within(row)} · {row['hardware']}" for row in latencies.to_dict("records")]
    return latencies.assign(conditions=names).drop_duplicates(["run_id", "stage_id", "conditions"], keep="last")


def list_conditions(latencies: pd.DataFrame) -> list[str]:
    """The conditions, the most frequent first."""
    counts = latencies["conditions"].value_counts(sort=False)
    return list(counts.sort_values(ascending=False, kind="stable").index)


def join_latencies(items: pd.DataFrame, latencies: pd.DataFrame, conditions: str | None) -> pd.DataFrame:
    """The items with `is_timed` (under any conditions) and, if `conditions` are given, their latencies under them."""
    marked = items.assign(is_timed=items["stage_id"].isin(latencies.get("stage_id", [])))
    if conditions is None:
        return marked
    chosen = latencies[latencies["conditions"] == conditions]
    place = ["run_id", "stage_id"]
    return marked.merge(chosen[[*place, "p50_ms", "p95_ms", "disturbed"]], on=place, how="left")
