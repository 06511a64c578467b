"""What each step of a run did to one quantity: a bar from the value before it to the value after."""

import altair as alt
import pandas as pd

from app.charts.axes import NUMBER, Axis
from app.charts.theme import BAD, GOOD, NEUTRAL

BAR_HEIGHT = 34
LABEL_WIDTH = 150  # pixels
WORDS = 0.45  # of the span, for the value's words right of the longest bar
_EFFECTS = {"better": GOOD, "worse": BAD, "same": NEUTRAL, "start": NEUTRAL}


def changes(stages: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """A row a measured stage: `label`, `before`, `after`, `effect` and how the change reads.

    `stages` are in order, with `position`, `label` and the axis's column.
    """
    known = stages.dropna(subset=[axis.column])
    rows = []
    before: float | None = None
    for stage in known.to_dict("records"):
        after = float(stage[axis.column])
        label = f"{stage['position']} · {stage['label']}"
        rows.append(
            {
                "label": label,
                "before": 0.0 if before is None else before,
                "after": after,
                **_effect(axis, before, after),
            }
        )
        before = after
    return pd.DataFrame(rows, columns=["label", "before", "after", "effect", "text", "change"])


def _effect(axis: Axis, before: float | None, after: float) -> dict[str, str]:
    if before is None:
        return {"effect": "start", "text": axis.read(after), "change": "where it starts"}
    if after == before:
        return {"effect": "same", "text": axis.read(after), "change": "no change"}
    improved = (after < before) == (axis.better == "less")
    sign = "−" if after < before else "+"
    share = f" ({sign}{abs(after - before) / abs(before) * 100:.0f} %)" if before else ""
    return {
        "effect": "better" if improved else "worse",
        "text": axis.read(after),
        "change": f"{sign}{axis.read(abs(after - before))}{share}",
    }


def waterfall(stages: pd.DataFrame, axis: Axis, *, zero: bool = True) -> alt.LayerChart | alt.FacetChart:
    """The chart; `zero` False leaves the origin out, where all values are close (scores)."""
    rows = changes(stages, axis)
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
        x=alt.X("before:Q", scale=scale, title=f"{axis.title} ({unit})" if unit else axis.title, axis=ticks),
        x2="after:Q",
        color=alt.Color("effect:N", scale=alt.Scale(domain=list(_EFFECTS), range=list(_EFFECTS.values())), legend=None),
    )
    now = base.mark_tick(thickness=2, height=22, color=NEUTRAL).encode(x=alt.X("after:Q", scale=scale))
    texts = base.mark_text(align="left", dx=6, color=NEUTRAL).encode(x=alt.X("end:Q", scale=scale), text="text:N")
    return alt.layer(bars, now, texts).properties(height=alt.Step(BAR_HEIGHT))


def _domain(rows: pd.DataFrame, *, zero: bool) -> list[float]:
    """From the smallest to the largest value, with room for the words on the right."""
    low, high = (0.0 if zero else float(rows[["before", "after"]].min().min())), float(rows["end"].max())
    span = (high - low) or abs(high) * 0.1 or 1.0
    return [low if zero else low - 0.1 * span, high + WORDS * span]
