"""Tables of the comparison: each item against the base, and the settings that differ. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from app.text import formats, stage_references
from app.text.schema import in_words
from app.text.stages import NO_KERNEL, format_quantity, mark_disturbed
from core.analysis.differences import Field, differing, flattened, words
from core.measured import SIGNIFICANT, Comparison
from core.paired_tests import holm
from core.quantities import MEDIAN, SCORE, SIZE, Quantity, Shown, shown_in
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec

_APART = (SIZE, SCORE, MEDIAN)  # in columns of their own, also relative to the base
VERDICTS = {"better": "better", "worse": "worse", "chance": "not significant"}


def judge(items: pd.DataFrame, base: Mapping[str, Any], found: Mapping[str, Comparison | str]) -> pd.DataFrame:
    """The items with `delta`, `delta_low`, `delta_high`, `p_value` (Holm-adjusted), `verdict` and `why_not`.

    `found` is by the item's short name; an item without a comparison has the reason in `why_not`.
    """
    tested = {name: c for name, c in found.items() if isinstance(c, Comparison)}
    adjusted = dict(zip(tested, holm([c.p_value for c in tested.values()]), strict=True))
    rows = []
    for item in items["item"]:
        c = tested.get(item)
        rows.append(
            {
                "delta": c.delta if c else None,
                "delta_low": c.low if c else None,
                "delta_high": c.high if c else None,
                "p_value": adjusted.get(item),
                "verdict": _verdict(c, adjusted[item], bool(base["higher_is_better"])) if c else "",
                "why_not": "" if c else str(found.get(item, "")),
            }
        )
    return pd.concat([items.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def _verdict(comparison: Comparison, p_value: float, higher_is_better: bool) -> str:
    if p_value >= SIGNIFICANT:
        return "chance"
    return "better" if (comparison.delta > 0) == higher_is_better else "worse"


def summarize(rows: pd.DataFrame, base: Mapping[str, Any]) -> pd.DataFrame:
    """One row per item, as text: what it is, and how it compares with the base (the first row).

    `rows` come from `judge`, with latencies from `latency.join_latencies`.
    """
    others = [q for q in shown_in(Shown.COMPARE) if q not in _APART and q.name in rows and rows[q.name].notna().any()]
    return pd.DataFrame([_summary_row(row, base, others) for row in rows.to_dict("records")])


def _summary_row(row: dict[str, Any], base: Mapping[str, Any], others: Sequence[Quantity]) -> dict[str, Any]:
    unit = row["score_unit"]
    is_base = row["item"] == base["item"]
    return {
        "Run": stage_references.title(row["item"], row["run_name"] or row["run_recipe"]),
        "Stage": row["label"] + (" (base)" if is_base else ""),
        "Score": formats.score(row["score"], unit),
        "Score vs base": formats.NOTHING if is_base else _difference(row),
        "Size": formats.size(row["size_bytes"]),
        "Size / base": _ratio(row["size_bytes"], base["size_bytes"], is_base),
        "Latency p50": _latency(row),
        "Latency / base": _ratio(row.get("p50_ms"), base.get("p50_ms"), is_base),
        **{quantity.short: format_quantity(row, quantity, interval=False) for quantity in others},
    }


def _difference(row: dict[str, Any]) -> str:
    if pd.isna(row["delta"]):
        return row["why_not"] or formats.NOTHING
    change = formats.score_change(row["delta"], row["score_unit"])
    return f"{change}, {VERDICTS[row['verdict']]} ({formats.p_value(row['p_value'])})"


def _latency(row: Mapping[str, Any]) -> str:
    p50 = _known(row.get("p50_ms"))
    if p50 is None:
        return NO_KERNEL if row["trained"] and not row["is_timed"] else formats.NOTHING
    return mark_disturbed(formats.milliseconds(p50), row["disturbed"])


def _ratio(value: Any, base: Any, is_base: bool) -> str:
    if is_base or _known(value) is None or not _known(base):
        return formats.NOTHING
    return formats.ratio(float(value) / float(base))


def _known(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def list_differing_settings(items: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """One row per setting that differs, one column per run; empty where a run does not have the setting."""
    by_run = items.drop_duplicates("run_id")
    specs = [RunSpec.parse(spec) for spec in by_run["run_spec"]]
    found = differing([flattened(spec, catalogue) for spec in specs])
    return _in_columns(found, by_run["run_id"], "Setting")


def list_differing_environments(items: pd.DataFrame) -> pd.DataFrame:
    """The same for the environments in which the runs executed."""
    by_run = items.drop_duplicates("run_id")
    rows: list[dict[Field, Any]] = [
        {(str(key),): value for key, value in (environment or {}).items() if key != "worker"}
        for environment in by_run["run_environment"]
    ]
    return _in_columns(differing(rows), by_run["run_id"], "Environment")


def _in_columns(found: Mapping[Field, Sequence[Any]], run_ids: Iterable[int], head: str) -> pd.DataFrame:
    columns = [f"run {run_id}" for run_id in run_ids]
    lines = [[formats.NOTHING if value is None else in_words(value) for value in values] for values in found.values()]
    return pd.DataFrame(lines, columns=columns, index=pd.Index([words(name) for name in found], name=head))
