"""The trade-off scatter plot: two quantities of every measured stage, the Pareto frontier and the limits."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import altair as alt
import pandas as pd
from altair.utils.schemapi import debug_mode

from app.charts.annotated import DOMINANCES, OUTSIDE, list_texts
from app.charts.axes import NUMBER, Axis
from app.charts.theme import BAD, FAMILY_COLOURS, FAMILY_SHAPES, HEIGHT, NEUTRAL, PALE, PLAIN
from app.charts.unchecked import Unchecked
from core.analysis.dominance import Dominance

SELECTION = "chosen"
PADDING = 0.06  # of an axis's span, on either side
ROOM = 0.25  # of the marks' span, on either side, available to long intervals
NAMED_REFERENCES = 4  # more labels would overlap
BARS = 300  # with more points, only the frontier and the references get intervals
LEGEND_COLUMNS = 6
ALWAYS_TOLD = ("score", "size_bytes", "p50_ms")  # whatever the axes are
PLACE = ("x_shown", "y_shown")
FILLS = {Dominance.FRONTIER: PLAIN, Dominance.UNDECIDED: 0.0, Dominance.DOMINATED: PALE, OUTSIDE: PALE}
LOOKS = {Dominance.FRONTIER: "●", Dominance.UNDECIDED: "○", Dominance.DOMINATED: "pale:", OUTSIDE: "pale:"}
OUTLINES = {Dominance.FRONTIER: PLAIN, Dominance.UNDECIDED: PLAIN, Dominance.DOMINATED: 0.0, OUTSIDE: 0.0}


@debug_mode(False)
def draw_scatter(
    shown: pd.DataFrame,
    x: Axis,
    y: Axis,
    limits: dict[str, float],
    *,
    size: Axis | None = None,
    axes: dict[str, Axis],
    log_x: bool = True,
    log_y: bool = False,
) -> alt.LayerChart:
    """The chart of points from `annotate`; a click selects a point, Shift-click several.

    Up is always better: the Y axis is reversed if less is better.
    """
    scales = {"x": _Scale(shown, x, log_x), "y": _Scale(shown, y, log_y, reverse=y.better == "less")}
    drawn = shown.assign(**{f"{name}_shown": shown[s.axis.column] / s.factor for name, s in scales.items()})
    layers = [
        *_shading(scales, limits),
        _frontier_line(drawn, scales),
        *_intervals(drawn, scales),
        _marks(drawn, scales, size, axes),
        *_references(drawn, scales),
        *_knee(drawn, scales),
    ]
    drawn_fast = {"embedOptions": {"renderer": "canvas"}}
    return Unchecked(layer=layers, height=HEIGHT, usermeta=drawn_fast, title=_dominance_legend(drawn))


class _Scale:
    """An axis in one unit, over the range of the points with some padding."""

    def __init__(self, points: pd.DataFrame, axis: Axis, log: bool, *, reverse: bool = False):
        self.axis, self.reverse = axis, reverse
        values = points[axis.column].astype(float)
        self.factor, self.unit = axis.unit_for(float(values.max()))
        self.log = log and bool((values > 0).all())
        low, high = float(values.min()), float(values.max())
        room = (high / low) ** ROOM if self.log and low > 0 else (high - low) * ROOM
        least, most = (low / room, high * room) if self.log and low > 0 else (low - room, high + room)
        if self._has(points, axis.low):
            low = max(least, min(low, points[axis.low].dropna().astype(float).min()))
        if self._has(points, axis.high):
            high = min(most, max(high, points[axis.high].dropna().astype(float).max()))
        self.low, self.high = self._padded(low / self.factor, high / self.factor)

    @staticmethod
    def _has(points: pd.DataFrame, column: str) -> bool:
        return bool(column) and column in points and points[column].notna().any()

    def _padded(self, low: float, high: float) -> tuple[float, float]:
        if self.log and low > 0:
            room = max((high / low) ** PADDING, 1.05)
            return low / room, high * room
        room = max((high - low) * PADDING, abs(high) * 0.002, 1e-9)
        return low - room, high + room

    def title(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        if self.reverse:
            return f"{self.axis.title}{unit}, lower is better (reversed axis)"
        return f"{self.axis.title}{unit}, {'lower' if self.axis.better == 'less' else 'higher'} is better"

    def encoding(self, channel: type, field: str) -> alt.SchemaBase:
        kind: Literal["log", "linear"] = "log" if self.log else "linear"
        scale = alt.Scale(type=kind, domain=[self.low, self.high], nice=False, reverse=self.reverse)
        ticks = alt.Axis(format=NUMBER, tickCount=6, labelOverlap="greedy", grid=True, gridOpacity=0.4)
        return channel(f"{field}:Q", scale=scale, title=self.title(), axis=ticks)


def _place(scales: dict[str, _Scale]) -> dict[str, alt.SchemaBase]:
    return {"x": scales["x"].encoding(alt.X, "x_shown"), "y": scales["y"].encoding(alt.Y, "y_shown")}


def _shading(scales: dict[str, _Scale], limits: dict[str, float]) -> list[alt.Chart]:
    """The area that a limit on either axis excludes, shaded up to the edge of the chart."""
    layers = []
    for name, scale in scales.items():
        limit = limits.get(scale.axis.column)
        if limit is None:
            continue
        at = min(max(limit / scale.factor, scale.low), scale.high)
        end = scale.high if scale.axis.better == "less" else scale.low
        area = pd.DataFrame({"start": [at], "end": [end]})
        channel, second = (alt.X, alt.X2) if name == "x" else (alt.Y, alt.Y2)
        encoded = {name: scale.encoding(channel, "start"), f"{name}2": second("end")}
        layers.append(alt.Chart(area).mark_rect(color=BAD, opacity=0.1).encode(**encoded))
        layers.append(alt.Chart(area).mark_rule(color=BAD, strokeDash=[4, 4]).encode(**{name: encoded[name]}))
    return layers


def _frontier_line(drawn: pd.DataFrame, scales: dict[str, _Scale]) -> alt.Chart:
    """The edge of the dominated area: between two points only the worse value of both is reached."""
    steps: Literal["step-after", "step-before"] = "step-after"
    if scales["x"].axis.better == "more":
        steps = "step-before"
    edge = alt.Chart(drawn.loc[drawn["on_frontier"], [*PLACE]])
    line = edge.mark_line(interpolate=steps, color=NEUTRAL, strokeWidth=1.5, strokeDash=[6, 3])
    return line.encode(**_place(scales), order=alt.Order("x_shown:Q"))


def _intervals(drawn: pd.DataFrame, scales: dict[str, _Scale]) -> list[alt.Chart]:
    layers = []
    for name, scale in scales.items():
        low, high = scale.axis.low, scale.axis.high
        if not scale._has(drawn, low):
            continue
        known = drawn.dropna(subset=[low, high])
        if len(known) > BARS:
            known = known[known["on_frontier"] | known["is_reference"]]
        bars = known[[*PLACE, "family", "strength"]].assign(
            low=known[low] / scale.factor, high=known[high] / scale.factor
        )
        place = _place(scales)
        place[name] = scale.encoding(alt.X if name == "x" else alt.Y, "low")
        place[f"{name}2"] = (alt.X2 if name == "x" else alt.Y2)("high")
        layers.append(
            alt.Chart(bars)
            .mark_rule(strokeWidth=1, clip=True)
            .encode(**place, color=_colour(drawn), opacity=alt.Opacity("strength:Q", scale=None))
        )
    return layers


def _legend() -> alt.Legend:
    """One legend for colour and shape; every layer needs the same, because a layer without it removes it."""
    return alt.Legend(title=None, orient="top", columns=LEGEND_COLUMNS, symbolOpacity=1, symbolSize=110)


def _families(drawn: pd.DataFrame, table: Mapping[Any, str]) -> alt.Scale:
    shown = set(drawn["family"].unique())
    found = [name for name in table if name in shown]
    return alt.Scale(domain=found, range=[table[name] for name in found])


def _colour(drawn: pd.DataFrame) -> alt.Color:
    return alt.Color("family:N", scale=_families(drawn, FAMILY_COLOURS), legend=_legend())


def _marks(drawn: pd.DataFrame, scales: dict[str, _Scale], size: Axis | None, axes: dict[str, Axis]) -> alt.Chart:
    chosen = alt.selection_point(name=SELECTION, fields=["stage_id"], on="click")
    places = (scale.axis.column for scale in scales.values())
    columns = dict.fromkeys([*places, *([size.column] if size else []), *ALWAYS_TOLD])
    shown_axes = [axes[column] for column in columns if column in drawn and drawn[column].notna().any()]
    drawn = drawn.assign(**{f"{axis.column}_text": list_texts(drawn, axis) for axis in shown_axes})
    tooltip = _tooltip(drawn, shown_axes)
    channels = {
        **_place(scales),
        "color": _colour(drawn),
        "stroke": alt.Stroke("family:N", scale=_families(drawn, FAMILY_COLOURS), legend=_legend()),
        "shape": alt.Shape("family:N", scale=_families(drawn, FAMILY_SHAPES), legend=_legend()),
        "fillOpacity": _by_dominance(drawn, alt.FillOpacity, FILLS),
        "strokeOpacity": _by_dominance(drawn, alt.StrokeOpacity, OUTLINES),
        "opacity": alt.OpacityValue(PALE / 2, condition={"param": SELECTION, "value": 1.0}),
        "tooltip": tooltip,
    }
    if size is not None:
        factor, unit = size.unit_for(float(drawn[size.column].max()))
        drawn = drawn.assign(mark_size=drawn[size.column] / factor)
        channels["size"] = alt.Size(
            "mark_size:Q",
            title=f"{size.title} ({unit})" if unit else size.title,
            scale=alt.Scale(range=[40, 600], zero=False),
            legend=alt.Legend(orient="right", format=NUMBER),
        )
    tips = [tip.shorthand.removesuffix(":N") for tip in tooltip]
    needed = dict.fromkeys([*PLACE, "stage_id", "family", "dominance", "mark_size", *tips])
    ranked = drawn["dominance"].map(DOMINANCES.index).sort_values(ascending=False, kind="stable")
    drawn = drawn.loc[ranked.index]  # the best on top
    shown = drawn[[column for column in needed if column in drawn]]
    mark = alt.Chart(shown, name="marks").mark_point(filled=True, strokeWidth=1.5, size=110, aria=False)  # on a canvas
    return mark.encode(**channels).add_params(chosen)


def _dominance_legend(drawn: pd.DataFrame) -> alt.TitleParams:
    """A line above the chart with the look of each kind of mark: Vega-Lite has no legend for fills and outlines."""
    found = [f"{look} {name}" for name, look in LOOKS.items() if (drawn["dominance"] == name).any()]
    return alt.TitleParams(
        "     ".join(found), anchor="start", offset=8, color=NEUTRAL, fontSize=12, fontWeight="normal"
    )


def _by_dominance(drawn: pd.DataFrame, channel: type, table: Mapping[Any, float]) -> alt.SchemaBase:
    """Opacity of a mark's fill or outline, by its dominance."""
    found = [name for name in DOMINANCES if (drawn["dominance"] == name).any()]
    scale = alt.Scale(type="ordinal", domain=found, range=[table[name] for name in found])  # not a point scale
    return channel("dominance:N", scale=scale, legend=None)


def _tooltip(drawn: pd.DataFrame, axes: Iterable[Axis]) -> list[alt.Tooltip]:
    """What a stage is, and its values on these axes; kept short, as the browser prepares it for every mark."""
    first = [
        alt.Tooltip("label:N", title="Stage"),
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("run_id:N", title="Run"),
        *([alt.Tooltip("seeds_text:N", title="Seeds")] if "seeds_text" in drawn else []),
        alt.Tooltip("dominance:N", title="Dominance"),
    ]
    values = [alt.Tooltip(f"{axis.column}_text:N", title=axis.title) for axis in axes]
    kernel = [alt.Tooltip("kernel:N", title="Kernel")] if "kernel" in drawn else []
    return [*first, *values, *kernel]


def _references(drawn: pd.DataFrame, scales: dict[str, _Scale]) -> list[alt.Chart]:
    """A ring around every reference, with a label if there are few."""
    found = drawn.loc[drawn["is_reference"], [*PLACE]].assign(words="reference")
    place = _place(scales)
    ring = alt.Chart(found).mark_point(shape="circle", size=330, strokeWidth=2, color=NEUTRAL, filled=False)
    layers = [ring.encode(**place, tooltip=alt.TooltipValue(None))]
    if 0 < len(found) <= NAMED_REFERENCES:
        name = alt.Chart(found).mark_text(align="right", baseline="bottom", dx=-11, dy=-9, color=NEUTRAL)
        layers.append(name.encode(**place, text=alt.Text("words:N"), tooltip=alt.TooltipValue(None)))
    return layers


def _knee(drawn: pd.DataFrame, scales: dict[str, _Scale]) -> list[alt.Chart]:
    """A label at the knee of the frontier, if there is one: on the side where nothing is better."""
    found = drawn.loc[drawn["is_knee"], [*PLACE]].assign(words="knee")
    if found.empty:
        return []
    side: dict[str, Any] = (
        {"align": "right", "dx": -8} if scales["x"].axis.better == "less" else {"align": "left", "dx": 8}
    )
    word = alt.Chart(found).mark_text(**side, baseline="bottom", dy=-8, fontWeight="bold", color=NEUTRAL)
    return [word.encode(**_place(scales), text=alt.Text("words:N"), tooltip=alt.TooltipValue(None))]
