"""Charts of a sensitivity table: layers against formats, outliers, histograms, and predictions for each budget."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts.layers import CELL_HEIGHT, LABEL_WIDTH
from app.charts.theme import NEUTRAL, SERIES
from app.text import formats
from core.allocation.histograms import BINS, REACH
from core.allocation.table import DENSE, SensitivityTable

FLOOR = 1e-9  # nats: what is less, or below zero, is drawn as this
MOST_WORDS = 400  # cells with room for their value
HISTOGRAM_HEIGHT = 200
FRONTIER_HEIGHT = 340
KINDS = ("mixed", "uniform", "first and last at 8 bit", "measured")
KIND_COLOURS = dict(zip(KINDS, (SERIES[0], SERIES[4], SERIES[2], SERIES[1]), strict=True))
KIND_SHAPES = dict(zip(KINDS, ("circle", "square", "triangle-up", "cross"), strict=True))


def sensitivity_map(table: SensitivityTable) -> alt.LayerChart | alt.FacetChart:
    """Loss increases: one row for each group of layers, one column for each format, colours on a logarithmic scale."""
    drawn = loss_cells(table)
    base = alt.Chart(drawn).encode(
        x=alt.X("format:N", title=None, sort=None, axis=alt.Axis(orient="top", labelAngle=-30, labelOverlap=False)),
        y=alt.Y("group:N", title=None, sort=None, axis=alt.Axis(labelLimit=2 * LABEL_WIDTH, labelBound=False)),
        tooltip=[
            alt.Tooltip("group:N", title="layers"),
            alt.Tooltip("format:N", title="format"),
            alt.Tooltip("words:N", title="loss increase"),
            alt.Tooltip("size:N", title="size"),
        ],
    )
    low, high = float(drawn["shown"].min()), float(drawn["shown"].max())
    legend = alt.Legend(orient="bottom", direction="horizontal", gradientLength=300, format=".0e", tickCount=4)
    scale = alt.Scale(type="log", scheme="viridis", domain=[low, max(high, low * 1.001)])
    colour = alt.Color("shown:Q", title="loss increase, nats", scale=scale, legend=legend)
    layers = [base.mark_rect(stroke="white", strokeWidth=0.5).encode(color=colour)]
    if len(drawn) <= MOST_WORDS:
        middle = float(np.sqrt(low * high))
        ink = alt.when(alt.datum.shown > middle).then(alt.value("black")).otherwise(alt.value("white"))
        layers.append(base.mark_text(fontSize=11).encode(text="short:N", color=ink))
    return alt.layer(*layers).properties(height=alt.Step(CELL_HEIGHT))


def loss_cells(table: SensitivityTable) -> pd.DataFrame:
    """One row for each group in each format but the unchanged one; what is not finite is left out."""
    rows = []
    for group in table.groups:
        for index, each in enumerate(table.formats):
            loss = group.losses[index]
            if index == DENSE or loss is None:
                continue
            rows.append(
                {
                    "group": group.name,
                    "format": each.name,
                    "loss": loss,
                    "shown": max(loss, FLOOR),
                    "words": formats.nats(loss),
                    "short": short(loss),
                    "size": formats.size(group.bytes[index]),
                }
            )
    return pd.DataFrame(rows)


def short(loss: float) -> str:
    """A loss for a narrow cell, in nats: "0.12", "0.0012", "3e-6"."""
    if loss <= 0:
        return "≤ 0"
    return f"{loss:.2g}" if loss >= 1e-4 else f"{loss:.0e}".replace("e-0", "e-")


def outlier_chart(profiles: list[dict[str, Any]]) -> alt.LayerChart | alt.FacetChart:
    """The outlier ratios of each layer's weights and inputs, on one logarithmic axis."""
    rows = [
        {"layer": profile["name"], "of": of, "ratio": profile[of]["outlier_ratio"], "rms": profile[of]["rms"]}
        for profile in profiles
        for of in ("weights", "inputs")
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("layer:N", title=None, sort=None, axis=alt.Axis(labelLimit=2 * LABEL_WIDTH)),
        tooltip=[
            alt.Tooltip("layer:N"),
            alt.Tooltip("of:N", title="values"),
            alt.Tooltip("ratio:Q", title="largest magnitude / RMS", format=".3g"),
            alt.Tooltip("rms:Q", title="RMS", format=".3g"),
        ],
    )
    x = alt.X(
        "ratio:Q", title="Largest magnitude / root mean square", scale=alt.Scale(type="log", nice=False, padding=12)
    )
    lines = base.mark_line(color=NEUTRAL, opacity=0.5).encode(x=x, detail="layer:N")
    names = ["weights", "inputs"]
    colours = alt.Scale(domain=names, range=[SERIES[0], SERIES[1]])
    points = base.mark_point(size=70, filled=True, opacity=0.95).encode(
        x=x,
        color=alt.Color("of:N", title=None, sort=names, scale=colours, legend=alt.Legend(orient="top")),
        shape=alt.Shape("of:N", title=None, sort=names, scale=alt.Scale(domain=names, range=["circle", "triangle-up"])),
    )
    return alt.layer(lines, points).properties(height=alt.Step(20))


def histogram(profile: dict[str, Any], title: str) -> alt.Chart:
    """Counts in equal bins over ± REACH root mean squares; the outermost bins also hold what lies beyond."""
    width = 2 * REACH / BINS
    rows = []
    for index, count in enumerate(profile["histogram"]):
        low = -REACH + index * width
        place = f"{low:.2f} to {low + width:.2f} RMS"
        if index in (0, BINS - 1):
            place = f"beyond {REACH - width:.2f} RMS"
        rows.append({"low": low, "high": low + width, "count": count, "base": 0.5, "place": place})
    drawn = pd.DataFrame(rows)
    return (
        alt.Chart(drawn[drawn["count"] > 0])
        .mark_rect(color=SERIES[0], stroke="white", strokeWidth=0.3)
        .encode(
            x=alt.X("low:Q", title=f"{title} / root mean square", scale=alt.Scale(domain=[-REACH, REACH])),
            x2="high:Q",
            y=alt.Y("count:Q", title="Values", scale=alt.Scale(type="log", domainMin=0.5), axis=alt.Axis(format="~s")),
            y2="base:Q",
            tooltip=[alt.Tooltip("place:N", title="bin"), alt.Tooltip("count:Q", title="values", format=",")],
        )
        .properties(height=HISTOGRAM_HEIGHT)
    )


def frontier_chart(points: pd.DataFrame, budget: float, title: str) -> alt.LayerChart | alt.FacetChart:
    """Predicted loss against cost, and the budget as a line.

    Rows of `kind` (KINDS), `cost`, `loss`, `label`, and whether the label is `named` beside the point.
    """
    least = points["loss"][points["loss"] > FLOOR].min()
    floor = FLOOR if np.isnan(least) else least / 2  # of a logarithmic axis, for what is predicted to cost nothing
    drawn = points.assign(shown=points["loss"].clip(lower=floor), words=points["loss"].map(formats.nats))
    x = alt.X("cost:Q", title=title, scale=alt.Scale(zero=False, nice=False, padding=12))
    y = alt.Y("shown:Q", title="Loss increase, nats", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g"))
    tooltip = [
        alt.Tooltip("kind:N", title="choice"),
        alt.Tooltip("label:N", title="formats"),
        alt.Tooltip("cost:Q", title=title, format=".4g"),
        alt.Tooltip("words:N", title="loss increase"),
    ]
    base = alt.Chart(drawn).encode(x=x, y=y, tooltip=tooltip)
    mixed = base.transform_filter(alt.datum.kind == KINDS[0])
    line = mixed.mark_line(color=KIND_COLOURS[KINDS[0]], interpolate="step-after")
    shown = [kind for kind in KINDS if (drawn["kind"] == kind).any()]
    marks = base.mark_point(filled=True, opacity=0.95).encode(
        color=alt.Color("kind:N", title=None, scale=_scale(shown, KIND_COLOURS), legend=alt.Legend(orient="top")),
        shape=alt.Shape("kind:N", title=None, scale=_scale(shown, KIND_SHAPES)),
        size=alt.condition(alt.datum.kind == KINDS[0], alt.value(18), alt.value(80)),
    )
    words = base.transform_filter(alt.datum.named).mark_text(align="left", dx=7, dy=-8, fontSize=11, color=NEUTRAL)
    rule = alt.Chart(pd.DataFrame({"budget": [budget]})).mark_rule(strokeDash=[5, 3], color=NEUTRAL)
    return alt.layer(rule.encode(x="budget:Q"), line, marks, words.encode(text="label:N")).properties(
        height=FRONTIER_HEIGHT
    )


def _scale(kinds: list[str], of: dict[str, str]) -> alt.Scale:
    return alt.Scale(domain=kinds, range=[of[kind] for kind in kinds])
