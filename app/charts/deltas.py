"""Each item's difference in score from the base, with its 95 % interval."""

import altair as alt
import pandas as pd

from app.charts.theme import BAD, GOOD, NEUTRAL
from app.text import formats
from core.scores import difference_unit

ROW_HEIGHT = 26
LABEL_WIDTH = 260  # pixels
COLOURS = {"better": GOOD, "worse": BAD, "not significant": NEUTRAL}
SHAPES = {"better": "triangle-up", "worse": "triangle-down", "not significant": "circle"}


def draw_deltas(rows: pd.DataFrame, score: str, unit: str, base: str) -> alt.LayerChart | alt.FacetChart:
    """The chart of rows with `name`, `delta`, `delta_low`, `delta_high`, `p_value` and `verdict` (a key of COLOURS)."""
    drawn = rows.assign(
        words=[formats.score_change(value, unit) for value in rows["delta"]],
        interval=[
            f"{formats.score_change(low, unit)} to {formats.score_change(high, unit)}"
            for low, high in zip(rows["delta_low"], rows["delta_high"], strict=True)
        ],
    )[["name", "delta", "delta_low", "delta_high", "p_value", "verdict", "words", "interval"]]
    chart = alt.Chart(drawn).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=LABEL_WIDTH)),
        color=alt.Color(
            "verdict:N",
            title=None,
            scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=[
            alt.Tooltip("name:N", title="stage"),
            alt.Tooltip("words:N", title=f"{score} vs {base}"),
            alt.Tooltip("interval:N", title="95 % interval"),
            alt.Tooltip("p_value:Q", title="p (Holm-adjusted)", format=".2g"),
            alt.Tooltip("verdict:N", title="verdict"),
        ],
    )
    title = f"Difference in {score} from {base}" + (f" ({difference_unit(unit)})" if unit else "")
    shape = alt.Shape("verdict:N", title=None, scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())))
    differ = bool(drawn[["delta_low", "delta_high"]].any(axis=None))
    scale = alt.Scale() if differ else alt.Scale(domain=[-1, 1])
    x = alt.X("delta_low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=8))
    bars = chart.mark_rule(strokeWidth=2).encode(x=x, x2="delta_high:Q")
    marks = chart.mark_point(filled=True, size=90, opacity=1).encode(x="delta:Q", shape=shape)
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(strokeDash=[4, 3], color=NEUTRAL).encode(x="x:Q")
    return alt.layer(zero, bars, marks).properties(height=alt.Step(ROW_HEIGHT))
