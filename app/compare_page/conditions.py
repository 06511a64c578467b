"""Whether what is compared can be compared: data, hardware, software, and what is still missing. Pure."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from app import formats


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
    for name, title in (("hardware", "hardware"), ("software", "versions of the software")):
        kinds = items["run_environment"].map(_environment(name)).replace("", pd.NA).dropna().unique()
        if len(kinds) > 1:
            listed = ", ".join(formats.plain(kind) for kind in sorted(kinds)[:4])
            found.append(
                f"They executed on different {title} ({listed}): latencies are compared only where these agree."
            )
    return found


def comparable(items: pd.DataFrame, base: dict[str, Any]) -> list[str]:
    """Short names of the items that were scored on the same data as the base, in their order."""
    return list(items.loc[items["task_hash"] == base["task_hash"], "item"])


def _named(rows: pd.DataFrame) -> str:
    names = list(rows["item"])
    return formats.plural(len(names), "stage") if len(names) > 6 else "Stage " + ", ".join(names)


def _are(rows: pd.DataFrame) -> str:
    return "is" if len(rows) == 1 else "are"


def _environment(name: str) -> Callable[[dict[str, Any] | None], str]:
    return lambda environment: str((environment or {}).get(name, ""))
