"""Text of what a step calibrated with: its examples, and what the layers saw of them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from app.text import formats

OUTLIERS = 20  # largest magnitude as a multiple of the root mean square, above which ranges of integers suffer
COLUMNS = {
    "name": "Layer",
    "tokens": "Tokens",
    "experts": "Experts",
    "fewest tokens of an expert": "Fewest tokens of an expert",
    "inputs": "Inputs",
    "dead inputs": "Dead inputs",
    "outlier ratio": "Outlier ratio",
}


def describe_calibration(coverage: Mapping[str, Any]) -> str:
    """Its examples by source, and their tokens: "128 examples of task, 12.3 k tokens"."""
    drawn = [f"{formats.plural(n, 'example')} of {source}" for source, n in coverage["examples"].items()]
    tokens = [formats.plural(coverage["tokens"], "token")] if coverage["tokens"] else []
    return ", ".join([*drawn, *tokens])


def list_calibration_notes(coverage: Mapping[str, Any]) -> list[str]:
    """What a user should know of the coverage, in sentences."""
    layers = coverage["layers"]
    if not layers:
        return ["This step does not look at the inputs of single layers."]
    dead = sum(row.get("dead inputs", 0) for row in layers)
    starved = [row["name"] for row in layers if row.get("fewest tokens of an expert") == 0]
    worst = max(layers, key=lambda row: row.get("outlier ratio") or 0)
    notes = ["Tokens are the vectors that a layer saw: of images, their patches or places."]
    if dead:
        notes.append(f"{formats.plural(dead, 'input channel')} stayed zero: nothing is known of their weights.")
    if starved:
        notes.append(f"Some experts saw no token in {formats.plain(', '.join(starved[:4]))}: add examples.")
    if (worst.get("outlier ratio") or 0) > OUTLIERS:
        name, ratio = formats.plain(worst["name"]), formats.ratio(worst["outlier ratio"])
        notes.append(f"The largest input of {name} is {ratio} the root mean square: an outlier.")
    return notes


def make_calibration_table(coverage: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each layer, without columns that none has."""
    table = pd.DataFrame(coverage["layers"]).dropna(axis=1, how="all").round(1)
    return table[[name for name in COLUMNS if name in table]].rename(columns=COLUMNS)
