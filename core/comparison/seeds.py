"""Stages of one recipe that differ in their seeds, as one: the mean of each quantity with its 95 % interval.

The interval is Student's t interval of the mean over the seeds (n - 1 degrees of freedom). All seeds are scored on the
same test examples, so that it says nothing of other examples: where a quantity has an interval of its own (the score
over the test examples, the speed-up over the repeats) and the seeds' mean one is the wider, that one stands. Where all
seeds give the same value and no interval is known, the value counts as exact.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.comparison.paired import Z

Row = Mapping[str, Any]


def merged(rows: Sequence[Row], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """One row a recipe, in the order of their first stages; `rows` are in the order in which they were recorded.

    Rows have `stage_id`, `run_id`, `recipe_hash` (None: a recipe of its own), `seeds_hash`, `reference_stage_id`, the
    quantities and, as `<quantity>_low` and `_high`, their own intervals; None: not measured. Of rows with equal seeds
    the last counts. A merged row is its last one's with the first one's `stage_id`, the quantities' means and
    intervals, `<quantity>_df` (the degrees of freedom behind the interval; infinite for the quantity's own),
    `n_seeds`, the seeds' `runs` as a text and `stage_ids`.
    """
    recipes: dict[Any, dict[Any, Row]] = {}
    for row in rows:
        alone = row["recipe_hash"] is None
        recipe = ("stage", row["stage_id"]) if alone else row["recipe_hash"]
        of_seed = recipes.setdefault(recipe, {})
        of_seed.pop(row["seeds_hash"], None)  # the last takes the last place
        of_seed[row["seeds_hash"]] = row
    found = [_merged(list(of_seed.values()), quantities) for of_seed in recipes.values()]
    first = {stage_id: row["stage_id"] for row in found for stage_id in row["stage_ids"]}
    for row in found:
        row["reference_stage_id"] = first.get(row["reference_stage_id"], row["reference_stage_id"])
    return sorted(found, key=lambda row: row["stage_id"])


def mean_interval(
    values: Sequence[float], own: Sequence[tuple[float, float]] = ()
) -> tuple[float, float | None, float | None, float]:
    """Mean, low and high end and degrees of freedom of a quantity over seeds; no ends: the value counts as exact.

    `own` are the quantity's own 95 % intervals, one a seed, where it has them.
    """
    mean, n = math.fsum(values) / len(values), len(values)
    low, high = (math.fsum(ends) / n for ends in zip(*own, strict=True)) if own else (None, None)
    if n == 1:
        return mean, low, high, math.inf
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = error * quantile(n - 1)
    if low is not None and high is not None and high - low >= 2 * half:
        return mean, low, high, math.inf
    return (mean, mean - half, mean + half, float(n - 1)) if half else (mean, None, None, math.inf)


@cache
def quantile(df: float) -> float:
    """Student's t quantile of the two-sided 95 % level; without end: the normal one."""
    return Z if math.isinf(df) else float(special.stdtrit(df, 0.975))


def standard_errors(
    low: NDArray[np.float64], high: NDArray[np.float64], df: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Standard errors [N] behind 95 % intervals of these degrees of freedom; 0 where there is no interval (NaN)."""
    quantiles = np.array([quantile(value) for value in np.unique(df)])[np.unique(df, return_inverse=True)[1]]
    return np.nan_to_num((high - low) / 2 / quantiles, nan=0.0)


def _merged(stages: Sequence[Row], quantities: Sequence[str]) -> dict[str, Any]:
    row = {
        **stages[-1],
        "stage_id": min(stage["stage_id"] for stage in stages),
        "stage_ids": [stage["stage_id"] for stage in stages],
        "n_seeds": len(stages),
        "runs": ", ".join(str(stage["run_id"]) for stage in stages),
    }
    for name in quantities:
        known = [stage for stage in stages if stage[name] is not None]
        if not known:
            continue
        ends = ((stage.get(f"{name}_low"), stage.get(f"{name}_high")) for stage in known)
        own = [(low, high) for low, high in ends if low is not None and high is not None]
        told = mean_interval([stage[name] for stage in known], own if len(own) == len(known) else ())
        row |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_df"), told, strict=True))
    return row
