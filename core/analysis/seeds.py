"""Merges replicates: the mean of each quantity over seeds with its 95 % interval.

The interval is Student's t interval of the mean over the seeds (n - 1 degrees of freedom). All seeds are scored on the
same test examples, so it does not cover other examples: if a quantity has its own interval (the score over the test
examples, the speed-up over the repeats) and the mean of these over the seeds is wider, that one is used. If all seeds
give the same value and no interval is known, the value counts as exact.

Two or three seeds say little about the variance over seeds. Tests therefore moderate each recipe's variance by those of
all recipes (Smyth, Linear models and empirical Bayes methods, 2004, sections 3 and 6): the more similar the recipes'
variances are, the more a test relies on their common value.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from core.measured import Comparison
from core.paired_tests import Z

Row = Mapping[str, Any]
FEWEST = 20  # recipes from which a common variance is told
CAUTION = 2  # standard errors, above its estimate, at which the recipes' variances are taken to differ
LARGEST_DF = 1e6  # beyond it, variances are as good as equal


def merged(rows: Sequence[Row], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """One row per recipe, in the order of their first stages; `rows` are in the order of recording.

    Rows have `stage_id`, `run_id`, `recipe_hash` (None: a separate recipe), `seeds_hash`, `reference_stage_id`, the
    quantities and, as `<quantity>_low` and `_high`, their own intervals; None: not measured. Of rows with equal
    seeds, the last counts. A merged row is the last one with the first one's `stage_id`, the quantities' means and
    intervals, `<quantity>_df` (the degrees of freedom behind the interval; infinite for the quantity's own),
    `<quantity>_own` (half the width of the quantity's own interval), `n_seeds`, the seeds' `runs` as text,
    `stage_ids` and whether any timing was `disturbed`.
    """
    recipes: dict[Any, dict[Any, Row]] = {}
    for row in rows:
        alone = row["recipe_hash"] is None
        recipe = ("stage", row["stage_id"]) if alone else row["recipe_hash"]
        of_seed = recipes.setdefault(recipe, {})
        of_seed.pop(row["seeds_hash"], None)  # the last takes the last place
        of_seed[row["seeds_hash"]] = row
    found = [_merged(list(of_seed.values()), quantities) for of_seed in recipes.values()]
    refer_to_recipes(found)
    return sorted(found, key=lambda row: row["stage_id"])


def refer_to_recipes(rows: Sequence[dict[str, Any]], moved: Mapping[int, int] | None = None) -> None:
    """Replace references of merged rows to a seed's stage with the `stage_id` of its recipe among them.

    `moved` maps a recipe's former `stage_id` to its current one.
    """
    first = {stage_id: row["stage_id"] for row in rows for stage_id in row["stage_ids"]}
    first.update(moved or {})
    for row in rows:
        row["reference_stage_id"] = first.get(row["reference_stage_id"], row["reference_stage_id"])


def mean_interval(
    values: Sequence[float], own: Sequence[tuple[float, float]] = ()
) -> tuple[float, float | None, float | None, float]:
    """Mean, low and high end and degrees of freedom of a quantity over seeds; without ends, the value counts as exact.

    `own` are the quantity's own 95 % intervals, one per seed, if it has them.
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
    """Student's t quantile for the two-sided 95 % level; the normal one for infinite degrees of freedom."""
    return Z if math.isinf(df) else float(special.stdtrit(df, 0.975))


def standard_errors(
    low: NDArray[np.float64], high: NDArray[np.float64], df: NDArray[np.float64], own: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard errors [N] for tests, 0 if there is no interval (NaN), and their degrees of freedom [N].

    Errors between seeds (finite `df`) are moderated; if half the width of the `own` interval (NaN: none)
    is larger, that one is used.
    """
    errors = np.nan_to_num((high - low) / 2 / _quantiles(df), nan=0.0)
    errors, dfs = moderated(errors, df)
    covered = np.isfinite(df) & (own > errors * _quantiles(dfs))
    return np.where(covered, own / Z, errors), np.where(covered, math.inf, dfs)


def welch(means: Sequence[float], errors: Sequence[float], dfs: Sequence[float]) -> Comparison:
    """How the first of two independent means differs from the second (Welch, 1947), with errors from `standard_errors`.

    The p-value is two-sided; where both are exact it is 0, or 1 for equal ones.
    """
    delta = means[0] - means[1]
    variances = [error**2 for error in errors]
    total = math.fsum(variances)
    if not total:
        return Comparison(delta, delta, delta, 0.0 if delta else 1.0)
    parts = math.fsum(variance**2 / df for variance, df in zip(variances, dfs, strict=True))
    df = total**2 / parts if parts else math.inf
    t = -abs(delta) / math.sqrt(total)
    p_value = 2 * float(special.ndtr(t) if math.isinf(df) else special.stdtr(df, t))
    half = math.sqrt(total) * (Z if math.isinf(df) else float(special.stdtrit(df, 0.975)))
    return Comparison(delta, delta - half, delta + half, p_value)


def moderated(errors: NDArray[np.float64], dfs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard errors [N] of means over `dfs` + 1 seeds, moderated by one another, and their degrees of freedom [N].

    Infinite ones and errors of 0 do not change, and none change if fewer than `FEWEST` recipes have several seeds.
    """
    of_seeds = np.isfinite(dfs) & (errors > 0)
    if of_seeds.sum() < FEWEST:
        return errors, dfs
    df = dfs[of_seeds]
    variances = errors[of_seeds] ** 2 * (df + 1)
    common, prior_df = _prior(variances, df)
    share = 1.0 if math.isinf(prior_df) else prior_df / (prior_df + df)
    found, found_df = errors.copy(), dfs.copy()
    found[of_seeds] = np.sqrt((share * common + (1 - share) * variances) / (df + 1))
    found_df[of_seeds] = np.minimum(prior_df + df, df.sum())  # no surer than if all had one variance
    return found, found_df


def _prior(variances: NDArray[np.float64], df: NDArray[np.float64]) -> tuple[float, float]:
    """The common variance and its degrees of freedom, by the moments of the variances' logarithms (Smyth, 6.2).

    The spread of variances is taken some standard errors above its estimate: otherwise recipes with two seeds each
    would often count as equally noisy, and tests would find too many differences.
    """
    logs = np.log(variances) - special.digamma(df / 2) + np.log(df / 2)
    spread = float(logs.var(ddof=1))
    excess = spread * (1 + CAUTION * math.sqrt(2 / (len(logs) - 1))) - float(special.polygamma(1, df / 2).mean())
    if excess <= float(special.polygamma(1, LARGEST_DF / 2)):
        return float((df * variances).sum() / df.sum()), math.inf
    half = float(optimize.brentq(lambda half: special.polygamma(1, half) - excess, 1e-6, LARGEST_DF / 2))
    return math.exp(logs.mean() + float(special.digamma(half)) - math.log(half)), 2 * half


def _quantiles(dfs: NDArray[np.float64]) -> NDArray[np.float64]:
    values, places = np.unique(dfs, return_inverse=True)
    return np.array([quantile(value) for value in values.tolist()])[places]


def _merged(stages: Sequence[Row], quantities: Sequence[str]) -> dict[str, Any]:
    row = {
        **stages[-1],
        "stage_id": min(stage["stage_id"] for stage in stages),
        "stage_ids": [stage["stage_id"] for stage in stages],
        "n_seeds": len(stages),
        "runs": ", ".join(str(stage["run_id"]) for stage in stages),
        "disturbed": any(stage.get("disturbed") for stage in stages),
    }
    for name in quantities:
        known = [stage for stage in stages if stage[name] is not None]
        if not known:
            continue
        own = _own_intervals(known, name)
        told = mean_interval([stage[name] for stage in known], own if len(own) == len(known) else ())
        row |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_df"), told, strict=True))
        if own:
            row[f"{name}_own"] = math.fsum(high - low for low, high in own) / len(own) / 2
    return row


def _own_intervals(stages: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """The 95 % intervals that stages have of a quantity."""
    low, high = f"{name}_low", f"{name}_high"
    if low not in stages[0]:
        return []
    return [(stage[low], stage[high]) for stage in stages if stage[low] is not None and stage[high] is not None]
