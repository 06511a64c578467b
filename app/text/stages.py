"""Tables of a run's stages and latencies. Pure: frames in, frames out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from app.text import formats
from app.text.conditions import condition_name_within
from core.measured import CHECKPOINT, reached_share
from core.quantities import SCORE, Origin, Quantity, Shown, in_sentence, kept_in, shown_in
from core.scores import find_unit

NO_KERNEL = "size only (no kernel on this worker)"
DISTURBED = (
    "Disturbed: other processes used the machine during every attempt of the measurement, so the latency is only "
    "approximate. Requeue the run on an idle machine to measure again."
)
_PHASES = {"forward": 0, "prefill": 1, "decode": 2}


def name_of(stage: dict[str, Any]) -> str:
    """A stage's position and label: "2 · rtn 8 bit"; an external reference has no position."""
    return f"reference · {stage['label']}" if stage["position"] < 0 else f"{stage['position']} · {stage['label']}"


def make_missed_table(details: dict[str, Any]) -> pd.DataFrame:
    """The modules whose parameters a step did not reach, largest first; empty if it reached all of them."""
    missed = details.get("reached", {}).get("missed", [])
    return pd.DataFrame(
        [{"Not reached": m["name"], "Kind": m["kind"], "Parameters": formats.count(m["parameters"])} for m in missed]
    )


def make_curve_title(name: str) -> str:
    """A curve's name as text, with its unit if it is a score."""
    words = name.replace("_", " ")
    unit = find_unit(words.removeprefix("validation "))
    return f"{words} ({unit})" if unit else words


def mark_disturbed(time: str, disturbed: bool) -> str:
    """A measured time as text, marked if the machine was busy (DISTURBED)."""
    return f"{time} (disturbed)" if disturbed else time


def add_conditions(latencies: pd.DataFrame) -> pd.DataFrame:
    """The latencies with `conditions` as text, the simplest (forward, smallest batch) first."""
    if latencies.empty:
        return latencies.assign(conditions=[])
    named = latencies.assign(
        conditions=[condition_name_within(row) for row in latencies.to_dict("records")],
        _phase=latencies["phase"].map(_PHASES),
    )
    return named.sort_values(["position", "runtime", "_phase", "batch"], kind="stable").drop(columns="_phase")


def add_latency(stages: pd.DataFrame, latencies: pd.DataFrame, conditions: str | None) -> pd.DataFrame:
    """The stages with their latency under the given conditions: p50_ms, p95_ms, ratio and its interval, kernel."""
    columns = ["p50_ms", "p95_ms", "ratio", "ratio_low", "ratio_high", "kernel", "disturbed"]
    if latencies.empty or conditions is None:
        return stages.assign(**dict.fromkeys(columns))
    chosen = latencies[latencies["conditions"] == conditions].drop_duplicates("position", keep="last")
    return stages.merge(chosen[["position", *columns]], on="position", how="left")


def make_stage_table(stages: pd.DataFrame, timed: set[int]) -> pd.DataFrame:
    """The effect of each step on size, score and latency, as text; `timed` are the positions with any latency.

    `stages` come from `with_latency`.
    """
    return pd.DataFrame([_row(stage, timed) for stage in stages.to_dict("records")])


def _row(stage: dict[str, Any], timed: set[int]) -> dict[str, str]:
    unit = stage["score_unit"]
    return {
        "Stage": name_of(stage),
        "Size": _size(stage),
        stage["score_name"].capitalize(): f"{formats.with_interval(stage, SCORE, unit)}{_more_scores(stage)}",
        "Score vs reference": describe_comparison(stage),
        "p50 / p95": _latency(stage, timed),
        "Relative latency": format_ratio(stage),
        "Kernel": str(stage["kernel"]) if _is_known(stage["kernel"]) else formats.NOTHING,
    }


def list_checkpoint_notes(stages: pd.DataFrame) -> list[str]:
    """Size and dtype of the user's own files, for each source loaded from them."""
    checkpoints = [
        (stage["label"], stage["details"][CHECKPOINT])
        for stage in stages.to_dict("records")
        if isinstance(stage["details"], dict) and CHECKPOINT in stage["details"]
    ]
    return [
        f"{formats.plain(label)} has {formats.size(stored['bytes'])} of {stored['dtype']} weights in its files; "
        "size ratios are relative to these."
        for label, stored in checkpoints
    ]


def make_cost_table(stages: pd.DataFrame) -> pd.DataFrame:
    """Compute and memory of each stage, as text."""
    return pd.DataFrame(
        [
            {
                "Stage": name_of(stage),
                **{quantity.short: format_quantity(stage, quantity) for quantity in shown_in(Shown.COMPUTE)},
                "Reached by the step": formats.percent(reached_share(stage["details"])),
                "Other scores": _further_scores(stage),
                "Compute time": f"{formats.duration(stage['seconds'])}{' (reused)' if stage['reused'] else ''}",
            }
            for stage in stages.to_dict("records")
        ]
    )


def make_fidelity_table(stages: pd.DataFrame) -> pd.DataFrame:
    """How close each trained stage is to its reference, as text: the quantities that any of them has."""
    trained = stages[stages["trained"]]
    asked = shown_in(Shown.FIDELITY)
    known = [quantity for quantity in asked if trained[quantity.name].notna().any()] or asked
    return pd.DataFrame(
        [
            {"Stage": name_of(stage), **{q.short: format_quantity(stage, q) for q in known}}
            for stage in trained.to_dict("records")
        ]
    )


def format_quantity(row: Mapping[str, Any], quantity: Quantity, *, interval: bool = True) -> str:
    """A quantity of a stage as text, with its 95 % interval if it has one, or why it is missing."""
    if _is_known(row[quantity.name]):
        return formats.with_interval(row, quantity) if interval else formats.quantity(row[quantity.name], quantity)
    if quantity.origin is not Origin.COMPARISON:
        return formats.NOTHING
    return "reference" if row["stage_id"] == row["reference_stage_id"] else "not measured"


def _more_scores(stage: dict[str, Any]) -> str:
    """The scores that are quantities of their own: ", perplexity 9.87"."""
    known = [quantity for quantity in kept_in(Origin.SCORES) if _is_known(stage[quantity.name])]
    return "".join(f", {in_sentence(quantity.title)} {format_quantity(stage, quantity)}" for quantity in known)


def _further_scores(stage: dict[str, Any]) -> str:
    shown = {stage["score_name"], *(quantity.score for quantity in kept_in(Origin.SCORES))}
    further = {name: value for name, value in stage["scores"].items() if name not in shown}
    scores = [
        f"{name} {formats.score(value, unit) if (unit := find_unit(name)) else formats.number(value)}"
        for name, value in further.items()
    ]
    return ", ".join(scores) or formats.NOTHING


def size_change(stage: dict[str, Any]) -> str:
    """The size relative to the reference: "3.98× smaller"."""
    return formats.size_change(stage["size_bytes"], _number(stage["reference_size_bytes"]))


def describe_comparison(stage: dict[str, Any]) -> str:
    """The change in score, and whether the paired test finds it significant."""
    delta = _number(stage["score_delta"])
    if delta is None:
        return "reference" if stage["stage_id"] == stage["reference_stage_id"] else formats.NOTHING
    unit = stage["score_unit"]
    p_value = _number(stage["p_value"])
    text = formats.score_change(delta, unit)
    return text if p_value is None else f"{text}, {formats.significance(p_value)}"


def format_ratio(row: dict[str, Any]) -> str:
    """The relative latency with its interval; below one is faster."""
    ratio = _number(row["ratio"])
    if ratio is None:
        return formats.NOTHING
    low, high = _number(row["ratio_low"]), _number(row["ratio_high"])
    interval = "" if low is None or high is None else f" ({formats.ratio(low)} to {formats.ratio(high)})"
    return f"{formats.ratio(ratio)}{interval}"


def make_latency_table(latencies: pd.DataFrame, stages: pd.DataFrame) -> pd.DataFrame:
    """Every latency of the run, as text."""
    labels = {stage["position"]: name_of(stage) for stage in stages.to_dict("records")}
    rows = [
        {
            "Stage": labels.get(row["position"], formats.NOTHING),
            "Conditions": row["conditions"],
            "Dtype": row["dtype"],
            "Kernel": row["kernel"],
            "p50": formats.milliseconds(row["p50_ms"]),
            "p95": formats.milliseconds(row["p95_ms"]),
            "Reference p50": formats.milliseconds(_number(row["reference_p50_ms"])),
            "Relative latency": format_ratio(row),
            "Energy per call": formats.energy(_number(row["energy_mj"])),
            "Rounds": formats.count(row["repeats"]),
            "Machine": f"disturbed ({formats.percent(row['contention'], 0)} used by other processes)"
            if row["disturbed"]
            else "idle",
        }
        for row in latencies.to_dict("records")
    ]
    return pd.DataFrame(rows)


def make_layer_table(layers: list[dict[str, Any]]) -> pd.DataFrame:
    """A step's per-layer results, with units; errors are relative, so that layers of any size can be compared."""
    return pd.DataFrame(
        [{_title(key): _layer_value(key, value) for key, value in row.items() if key != "mse"} for row in layers]
    )


def _title(key: str) -> str:
    return "Layer" if key == "name" else key.replace("_", " ").capitalize()


def _layer_value(key: str, value: Any) -> str:
    if isinstance(value, list):
        return " × ".join(str(part) for part in value)
    if isinstance(value, float):
        return formats.percent(value, 2) if key in formats.SHARES else formats.number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return formats.count(value)
    return str(value)


def _size(stage: dict[str, Any]) -> str:
    change = size_change(stage)
    return formats.size(stage["size_bytes"]) + (f" ({change})" if change else "")


def _latency(stage: dict[str, Any], timed: set[int]) -> str:
    p50 = _number(stage["p50_ms"])
    if p50 is None:
        return NO_KERNEL if stage["trained"] and stage["position"] not in timed else formats.NOTHING
    times = f"{formats.milliseconds(p50)} / {formats.milliseconds(_number(stage['p95_ms']))}"
    return mark_disturbed(times, stage["disturbed"])


def _is_known(value: Any) -> bool:
    return value is not None and not pd.isna(value)


def _number(value: Any) -> float | None:
    return float(value) if _is_known(value) else None
