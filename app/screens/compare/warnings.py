"""Warnings about a comparison: different data, hardware or software, and missing results. Pure."""

from typing import Any

import pandas as pd

from app.text import formats


def doubts(items: pd.DataFrame, base: dict[str, Any]) -> list[str]:
    """Sentences about differences other than the recipes, and about what is missing."""
    found = []
    others = items[items["task_hash"] != base["task_hash"]]
    if len(others):
        named = _named(others)
        found.append(
            f"{named} {_were(others)} scored on different data than the base, so no score difference is shown for "
            f"{'it' if len(others) == 1 else 'them'}."
        )
    untrained = items[~items["trained"].astype(bool)]
    if len(untrained):
        found.append(f"{_named(untrained)} {_are(untrained)} untrained, so the score is meaningless.")
    unfinished = items[items["run_status"].map(str).isin(["queued", "running"])]
    if len(unfinished):
        found.append(f"{_named(unfinished)} {_are(unfinished)} not finished; the last stage so far is shown.")
    if _differ(items, "hardware"):
        found.append("The runs executed on different hardware. Latencies are compared only for the selected hardware.")
    if _differ(items, "software"):
        found.append("The runs executed with different software versions, listed under Settings.")
    return found


def list_comparable(items: pd.DataFrame, base: dict[str, Any]) -> list[str]:
    """Short names of the items that were scored on the same data as the base, in their order."""
    return list(items.loc[items["task_hash"] == base["task_hash"], "item"])


def _named(rows: pd.DataFrame) -> str:
    names = list(rows["item"])
    if len(names) > 6:
        return formats.plural(len(names), "stage")
    return f"Run {names[0]}" if len(names) == 1 else f"Runs {', '.join(names)}"


def _are(rows: pd.DataFrame) -> str:
    return "is" if len(rows) == 1 else "are"


def _were(rows: pd.DataFrame) -> str:
    return "was" if len(rows) == 1 else "were"


def _differ(items: pd.DataFrame, name: str) -> bool:
    """Whether the environments that have this entry differ in it."""
    found = {str(environment[name]) for environment in items["run_environment"] if (environment or {}).get(name)}
    return len(found) > 1
