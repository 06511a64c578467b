"""Cost against sequence length on log-log axes: a power law is a straight line whose slope is the exponent."""

import altair as alt
import pandas as pd

from app.charts.axes import BYTES, TIMES, Axis
from app.charts.curves import FAINT
from app.charts.theme import HEIGHT, NEUTRAL, SERIES
from app.text import formats
from core.complexity.fit import Exponent
from core.complexity.report import SurveyReport

AXES = {
    axis.column: axis
    for axis in (
        Axis("train_ms", "Forward and backward", formats.milliseconds, "less", TIMES),
        Axis("forward_ms", "Forward pass", formats.milliseconds, "less", TIMES),
        Axis("decode_ms", "Decoded token", formats.milliseconds, "less", TIMES),
        Axis(
            "train_bytes", "Peak memory of forward and backward", formats.size, "less", BYTES, short="Training memory"
        ),
        Axis("state_bytes", "State while decoding", formats.size, "less", BYTES, short="Decoding state"),
    )
}
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ((1, 0), (6, 3), (2, 2))
GUIDES = (1, 2)  # slopes drawn for comparison
ROOM = 1.3  # above and below what is drawn


def describe_power(found: Exponent | None) -> str:
    """An exponent with its interval: "T^1.02 ± 0.04"."""
    if found is None:
        return ""
    value = round(found.value, 2) + 0.0  # no −0.00
    return f"T^{value:.2f} ± {found.high - found.value:.2f}".replace("-", "−")


def list_points(report: SurveyReport, quantity: str) -> pd.DataFrame:
    """One row per architecture and length with the quantity: `name`, `label` (with its power), `length`, `value`,
    `text`."""
    axis = AXES[quantity]
    rows = [
        {
            "name": architecture.name,
            "label": f"{architecture.name}  {describe_power(report.fit(architecture, quantity))}".rstrip(),
            "length": length,
            "value": value,
            "text": axis.read(value),
        }
        for architecture in report.architectures
        for length, value in zip(report.lengths, getattr(architecture.costs, quantity), strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["name", "label", "length", "value", "text"])


def draw_growth(drawn: pd.DataFrame, quantity: str, names: list[str]) -> alt.LayerChart | alt.FacetChart:
    """Lines of `points`; an architecture's colour depends on its place in `names`, not on which others are shown."""
    axis = AXES[quantity]
    factor, unit = axis.unit_for(float(drawn["value"].max()))
    drawn = drawn.assign(scaled=drawn["value"] / factor)
    low, high = float(drawn["scaled"].min()) / ROOM, float(drawn["scaled"].max()) * ROOM
    lengths = sorted(drawn["length"].unique().tolist())
    x = alt.X(
        "length:Q",
        title="Sequence length T (tokens)",
        scale=alt.Scale(type="log", base=2, domain=[lengths[0] / ROOM, lengths[-1] * ROOM], nice=False),
        axis=alt.Axis(values=lengths, format=","),
    )
    y = alt.Y(
        "scaled:Q",
        title=f"{axis.title} ({unit})",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format=",.6~f"),
    )
    return alt.layer(_guides(lengths, low * ROOM, x, y), *_lines(drawn, axis, names, x, y)).properties(height=HEIGHT)


def _lines(drawn: pd.DataFrame, axis: Axis, names: list[str], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    labels = drawn.drop_duplicates("name").set_index("name")["label"]
    shown = [name for name in names if name in labels.index]
    domain = [labels[name] for name in shown]
    places = [names.index(name) for name in shown]
    colours = [SERIES[place % len(SERIES)] for place in places]
    dashes = [list(DASHES[place // len(SERIES) % len(DASHES)]) for place in places]
    shapes = [SHAPES[place % len(SHAPES)] for place in places]
    colour = alt.Color(
        "label:N",
        title=None,
        sort=domain,
        scale=alt.Scale(domain=domain, range=colours),
        legend=alt.Legend(orient="right", labelLimit=320, symbolType="stroke", symbolStrokeWidth=3),
    )
    chosen = alt.selection_point(fields=["label"], bind="legend")
    opacity = alt.when(chosen).then(alt.value(1)).otherwise(alt.value(FAINT))
    base = alt.Chart(drawn).encode(x=x, y=y, color=colour, opacity=opacity)
    line = base.mark_line(strokeWidth=2).encode(
        strokeDash=alt.StrokeDash("label:N", sort=domain, scale=alt.Scale(domain=domain, range=dashes), legend=None)
    )
    mark = base.mark_point(filled=True, size=60).encode(
        shape=alt.Shape("label:N", sort=domain, scale=alt.Scale(domain=domain, range=shapes), legend=None),
        tooltip=[
            alt.Tooltip("label:N", title="architecture"),
            alt.Tooltip("length:Q", title="tokens", format=","),
            alt.Tooltip("text:N", title=axis.words),
        ],
    )
    return [line.add_params(chosen), mark]


def _guides(lengths: list[int], start: float, x: alt.X, y: alt.Y) -> alt.Chart:
    """Grey lines of slope 1 and 2 from the lower left corner."""
    rows = [
        {"slope": slope, "length": length, "scaled": start * (length / lengths[0]) ** slope}
        for slope in GUIDES
        for length in (lengths[0], lengths[-1])
    ]
    return (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(clip=True, color=NEUTRAL, strokeWidth=1, strokeDash=[2, 4])
        .encode(x=x, y=y, detail="slope:N")
    )
