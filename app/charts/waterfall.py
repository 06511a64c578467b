"""The effect of each step of a run on one quantity: a bar from the value before it to the value after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from app.charts.axes import NUMBER, Axis
from app.charts.theme import BAD, GOOD, NEUTRAL, PALE
from app.text import formats

BAR_HEIGHT = 34
LABEL_WIDTH = 150  # pixels
WORDS = 0.45  # of the span, for the value to the right of the longest bar
_EFFECTS = {"better": GOOD, "worse": BAD, "same": NEUTRAL, "start": NEUTRAL}


@dataclass(frozen=True)
class Certainty:
    """Whether a change is significant, with an explanation."""

    is_sure: bool
    words: str


UNTESTED = Certainty(False, "not tested")


def changes(stages: pd.DataFrame, axis: Axis, certainties: Mapping[int, Certainty] | None = None) -> pd.DataFrame:
    """One row per measured stage: `label`, `before`, `after`, `effect`, `strength`, and value and change as text.

    `stages` are in order, with `position`, `label` and the axis's column. `certainties`, by position, are of the
    change from the stage before; uncertain changes are pale. Without them values are exact.
    """
    known = stages.dropna(subset=[axis.column])
    rows = []
    before: float | None = None
    for stage in known.to_dict("records"):
        after = float(stage[axis.column])
        row: dict[str, Any] = {
            "label": f"{stage['position']} · {stage['label']}",
            "before": 0.0 if before is None else before,
            "after": after,
            "strength": 1.0,
            **_effect(axis, before, after),
        }
        if certainties is not None and row["effect"] != "same":
            row |= _with_certainty(row, certainties.get(stage["position"]))
        rows.append(row)
        before = after
    return pd.DataFrame(rows, columns=["label", "before", "after", "effect", "strength", "text", "change"])


def _effect(axis: Axis, before: float | None, after: float) -> dict[str, str]:
    if before is None:
        return {"effect": "start", "text": axis.read(after), "change": "start"}
    if after == before:
        return {"effect": "same", "text": axis.read(after), "change": "no change"}
    effect = "better" if (after < before) == (axis.better == "less") else "worse"
    return {"effect": effect, "text": axis.read(after), "change": _words(axis, before, after)}


def _words(axis: Axis, before: float, after: float) -> str:
    if axis.column == "score":
        return formats.score_change(after - before, axis.units[0][1])
    sign = "−" if after < before else "+"
    share = f" ({sign}{abs(after - before) / abs(before) * 100:.0f} %)" if before else ""
    return f"{sign}{axis.read(abs(after - before))}{share}"


def _with_certainty(row: Mapping[str, Any], certainty: Certainty | None) -> dict[str, Any]:
    """Opacity and text of a change with its certainty; nothing precedes the first stage."""
    if certainty is None:
        if row["effect"] == "start":
            return {}
        certainty = UNTESTED
    return {"strength": 1.0 if certainty.is_sure else PALE, "change": f"{row['change']}, {certainty.words}"}


def draw_waterfall(
    stages: pd.DataFrame, axis: Axis, certainties: Mapping[int, Certainty] | None = None, *, zero: bool = True
) -> alt.LayerChart | alt.FacetChart:
    """The chart of `changes`, to be drawn under a heading that names the quantity; `zero=False` leaves the origin out,
    for values that are close together (scores)."""
    rows = changes(stages, axis, certainties)
    factor, unit = axis.unit_for(float(rows["after"].max()))
    rows = rows.assign(before=rows["before"] / factor, after=rows["after"] / factor)
    if not zero:
        rows.loc[rows["effect"] == "start", "before"] = rows.loc[rows["effect"] == "start", "after"]
    rows["end"] = rows[["before", "after"]].max(axis=1)
    scale = alt.Scale(domain=_domain(rows, zero=zero), nice=False, zero=False)
    base = alt.Chart(rows).encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, grid=False)),
        tooltip=[
            alt.Tooltip("label:N", title="Stage"),
            alt.Tooltip("text:N", title=axis.title),
            alt.Tooltip("change:N", title="Change"),
        ],
    )
    ticks = alt.Axis(format=NUMBER, tickCount=4, grid=True, labelOverlap="greedy")
    bars = base.mark_bar(height=16, cornerRadius=2).encode(
        x=alt.X("before:Q", scale=scale, title=unit or axis.title, axis=ticks),
        x2="after:Q",
        color=alt.Color("effect:N", scale=alt.Scale(domain=list(_EFFECTS), range=list(_EFFECTS.values())), legend=None),
        opacity=alt.Opacity("strength:Q", scale=None),
    )
    now = base.mark_tick(thickness=2, height=22, color=NEUTRAL).encode(x=alt.X("after:Q", scale=scale))
    texts = base.mark_text(align="left", dx=6, color=NEUTRAL).encode(x=alt.X("end:Q", scale=scale), text="text:N")
    return alt.layer(bars, now, texts).properties(height=alt.Step(BAR_HEIGHT))


def _domain(rows: pd.DataFrame, *, zero: bool) -> list[float]:
    """From the smallest to the largest value, with room for the text on the right."""
    low, high = (0.0 if zero else float(rows[["before", "after"]].min().min())), float(rows["end"].max())
    span = (high - low) or abs(high) * 0.1 or 1.0
    return [low if zero else low - 0.1 * span, high + WORDS * span]
