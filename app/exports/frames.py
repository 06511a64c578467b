"""Exported tables: raw numbers, with units in the column names. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from core.quantities import QUANTITIES, SCORE, SIZE, Origin, Quantity, kept_in
from core.scores import difference_unit


def frame_comparison(rows: pd.DataFrame, base: Mapping[str, Any]) -> pd.DataFrame:
    """The summary of the Compare page; `rows` come from `compare.tables.judge`, the base first."""
    columns: dict[str, Any] = {
        "run": rows["run_id"],
        "position": rows["position"],
        "stage": rows["label"],
        "name": rows["run_name"],
        "recipe": rows["run_recipe"],
        "owner": rows["owner"],
        "base": rows["item"] == base["item"],
        **_scores(rows, {"": "score", " low": "score_low", " high": "score_high"}),
    }
    unit = base["score_unit"]
    for name, column in (("", "delta"), (" low", "delta_low"), (" high", "delta_high")):
        columns[_named(f"difference from base{name}", difference_unit(unit))] = rows[column].astype(float)
    columns |= {
        "p-value (Holm)": rows["p_value"].astype(float),
        "verdict": rows["verdict"],
        "not compared because": rows["why_not"],
        "size [bytes]": rows["size_bytes"],
        "size / base": rows["size_bytes"] / base["size_bytes"],
    }
    if "p50_ms" in rows:
        columns |= {"latency p50 [ms]": rows["p50_ms"], "latency p95 [ms]": rows["p95_ms"]}
        columns["time / base"] = rows["p50_ms"] / base["p50_ms"]
    others = [q for q in kept_in(Origin.STAGE, Origin.SCORES, Origin.COMPARISON) if q not in (SIZE, SCORE)]
    return pd.DataFrame(columns | _measured(rows, others))


def frame_runs(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The list of the Runs page; `runs` come from `queries.runs.read_all_runs`, each with its `last` stage or None."""
    rows = pd.DataFrame([{**run, **_last(run["last"])} for run in runs])
    columns: dict[str, Any] = {
        "run": rows["id"],
        "status": [str(run["status"]) for run in runs],
        "name": rows["name"],
        "recipe": rows["recipe"],
        "model": rows["model"],
        "task": rows["task"],
        "owner": rows["owner"],
        "failure": [str(run["failure"] or "") for run in runs],
        **{f"{name} [UTC]": _moments(rows[f"{name}_at"]) for name in ("created", "started", "ended")},
        "compute [s]": rows["compute_seconds"].astype(float),
        "last stage": rows["last_label"].astype("str"),
        "size [bytes]": rows["last_size_bytes"].astype(float),
        "reference size [bytes]": rows["last_reference_size_bytes"].astype(float),
        **_scores(
            rows.assign(score_name=rows["last_score_name"], score_unit=rows["last_score_unit"]),
            {"": "last_score", " low": "last_score_low", " high": "last_score_high", " change": "last_score_delta"},
        ),
    }
    return pd.DataFrame(columns)


def frame_points(rows: pd.DataFrame, score_name: str, score_unit: str) -> pd.DataFrame:
    """The points of the Trade-offs page; `rows` come from `queries.tradeoffs.read_all_points`, for one task."""
    named = rows.assign(score_name=score_name, score_unit=score_unit)
    columns: dict[str, Any] = {
        "run": rows["run_id"],
        "stage": rows["label"],
        "technique": rows["technique"],
        "family": rows["family"],
        "model": rows["model"],
        "on frontier": rows["on_frontier"],
        "within limits": rows["feasible"],
        "size [bytes]": rows["size_bytes"],
        **_scores(named, {"": "score", " low": "score_low", " high": "score_high"}),
        **_measured(rows, [quantity for quantity in QUANTITIES if quantity not in (SIZE, SCORE)]),
        "kernel": rows["kernel"],
    }
    return pd.DataFrame(columns)


_LAST = (
    "label",
    "size_bytes",
    "reference_size_bytes",
    "score",
    "score_low",
    "score_high",
    "score_delta",
    "score_name",
    "score_unit",
)


def _last(last: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"last_{name}": last[name] if last else None for name in _LAST}


def _measured(rows: pd.DataFrame, quantities: Sequence[Quantity]) -> dict[str, pd.Series]:
    """Quantities with the ends of their intervals, empty if not measured."""
    heads = [pair for quantity in quantities for pair in quantity.exported.items()]
    return {head: rows[column].astype(float) for column, head in heads}


def _scores(rows: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, pd.Series]:
    """The scores, with one set of columns per kind of score, empty for rows with another kind."""
    kinds = rows[["score_name", "score_unit"]].dropna().drop_duplicates()
    return {
        _named(f"{name}{suffix}", unit): rows[column]
        .astype(float)
        .where((rows["score_name"] == name) & (rows["score_unit"] == unit))
        for name, unit in kinds.itertuples(index=False)
        for suffix, column in columns.items()
    }


def _named(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _moments(seconds: pd.Series) -> pd.Series:
    return pd.to_datetime(seconds.astype(float), unit="s", utc=True).dt.round("ms")
