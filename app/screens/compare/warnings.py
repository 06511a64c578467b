"""Whether what is compared can be compared: data, hardware, software, and what is still missing. Pure."""

from typing import Any

import pandas as pd

from app.text import formats


def doubts(items: pd.DataFrame, base: dict[str, Any]) -> list[str]:
    """Sentences about what differs beside the recipes, and what is not there to be compared."""
    found = []
    others = items[items["task_hash"] != base["task_hash"]]
    if len(others):
        named = _named(others)
        found.append(
            f"{named} {_are(others)} scored on other data than the base: no difference of scores is drawn for "
            f"{'it' if len(others) == 1 else 'them'}."
        )
    untrained = items[~items["trained"].astype(bool)]
    if len(untrained):
        found.append(f"{_named(untrained)} {_are(untrained)} not trained yet: the score says nothing.")
    unfinished = items[items["run_status"].map(str).isin(["queued", "running"])]
    if len(unfinished):
        found.append(
            f"{_named(unfinished)} {_are(unfinished)} not finished: what stands here is the last stage so far."
        )
    if _differ(items, "hardware"):
        found.append("They executed on different hardware: latencies are compared only on the one that is chosen.")
    if _differ(items, "software"):
        found.append("They executed under different versions of the software: Settings names them.")
    return found


def comparable(items: pd.DataFrame, base: dict[str, Any]) -> list[str]:
    """Short names of the items that were scored on the same data as the base, in their order."""
    return list(items.loc[items["task_hash"] == base["task_hash"], "item"])


def _named(rows: pd.DataFrame) -> str:
    names = list(rows["item"])
    if len(names) > 6:
        return formats.plural(len(names), "stage")
    return f"Run {names[0]}" if len(names) == 1 else f"Runs {', '.join(names)}"


def _are(rows: pd.DataFrame) -> str:
    return "is" if len(rows) == 1 else "are"


def _differ(items: pd.DataFrame, name: str) -> bool:
    """Whether the environments that tell of it tell different things."""
    told = {str(environment[name]) for environment in items["run_environment"] if (environment or {}).get(name)}
    return len(told) > 1
