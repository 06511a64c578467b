"""What a step did to each layer: rows are blocks, columns are the layers of a block, one quantity as colour."""

import re
from typing import Any

import altair as alt
import pandas as pd

from app.charts.theme import FAMILY_COLOURS
from app.text import formats
from core.families import Family

CELL_HEIGHT = 26
BAR_HEIGHT = 20
LABEL_WIDTH = 170  # pixels
MOST_WORDS = 160  # cells with room for their value
_NO_QUANTITY = ("name", "weights", "shape", "mse")  # relative errors can be compared between layers
_IN_BLOCK = re.compile(r"^(.*?\.\d+(?:\.\d+)?)\.(.+)$")  # blocks.3.ffn.up, or stages.0.1.conv1


def list_quantities(layers: list[dict[str, Any]]) -> list[str]:
    """Names of the numeric quantities of the layers, those that differ between layers first."""
    numeric: dict[str, set[float]] = {}
    for row in layers:
        for key, value in row.items():
            if key not in _NO_QUANTITY and isinstance(value, (int, float)) and not isinstance(value, bool):
                numeric.setdefault(key, set()).add(value)
    return sorted(numeric, key=lambda name: len(numeric[name]) == 1)


def make_title(quantity: str) -> str:
    """The quantity's name for a picker."""
    return quantity.replace("_", " ").capitalize()


def read(quantity: str, value: float) -> str:
    """The value as text, with its unit if it has one."""
    if quantity in formats.SHARES:
        return formats.percent(value)
    words = f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else formats.number(value)
    return words + (" %" if quantity.endswith("(%)") else "")


def list_cells(layers: list[dict[str, Any]], quantity: str) -> pd.DataFrame:
    """One row per layer with the quantity: `block`, `part`, `layer`, `value` and its text."""
    rows = []
    for layer in layers:
        value = layer.get(quantity)
        if value is None:
            continue
        found = _IN_BLOCK.match(layer["name"])
        block, part = found.groups() if found else (layer["name"], "")
        shape = " × ".join(map(str, layer.get("shape", ())))
        words = read(quantity, float(value))
        rows.append(
            {
                "block": block,
                "part": part,
                "layer": layer["name"],
                "shape": shape,
                "value": float(value),
                "words": words,
            }
        )
    return pd.DataFrame(rows, columns=["block", "part", "layer", "shape", "value", "words"])


def draw_layers(layers: list[dict[str, Any]], quantity: str) -> alt.LayerChart | alt.FacetChart:
    """A heat map if blocks have several layers, otherwise one bar per layer."""
    drawn = list_cells(layers, quantity)
    title = quantity.replace("_", " ")
    tooltip = [alt.Tooltip("layer:N", title="layer"), alt.Tooltip("words:N", title=title)]
    if drawn["shape"].any():
        tooltip.append(alt.Tooltip("shape:N", title="shape"))
    if drawn["part"].nunique() > 1:
        return _heat_map(drawn, title, quantity, tooltip)
    return _bars(drawn, title, tooltip)


def compare_layers(stages: dict[str, list[dict[str, Any]]], quantity: str) -> alt.LayerChart | alt.FacetChart:
    """A heat map of one quantity: one row per layer, one column per stage."""
    parts = [list_cells(layers, quantity).assign(part=name) for name, layers in stages.items()]
    drawn = pd.concat(parts).assign(block=lambda rows: rows["layer"])
    title = quantity.replace("_", " ")
    tooltip = [alt.Tooltip(f"{name}:N", title=heading) for name, heading in (("part", "stage"), ("layer", "layer"))]
    return _heat_map(drawn, title, quantity, [*tooltip, alt.Tooltip("words:N", title=title)])


def _heat_map(
    drawn: pd.DataFrame, title: str, quantity: str, tooltip: list[alt.Tooltip]
) -> alt.LayerChart | alt.FacetChart:
    domain = _domain(drawn["value"], quantity)
    many = drawn["part"].nunique() > 3
    heads = alt.Axis(
        orient="top", labelAngle=-45 if many else 0, labelLimit=LABEL_WIDTH, labelOverlap=False if many else "parity"
    )
    base = alt.Chart(drawn).encode(
        x=alt.X("part:N", title=None, sort=None, axis=heads),
        y=alt.Y("block:N", title=None, sort=None, axis=alt.Axis(labelLimit=LABEL_WIDTH, labelBound=False)),
        tooltip=tooltip,
    )
    axis_format = ".0%" if quantity in formats.SHARES else "~s"
    colour = alt.Color(
        "value:Q",
        title=title,
        scale=alt.Scale(scheme="viridis", domain=domain),
        legend=alt.Legend(format=axis_format, orient="bottom", direction="horizontal", gradientLength=220, tickCount=3),
    )
    layers = [base.mark_rect(stroke="white", strokeWidth=0.5).encode(color=colour)]
    if len(drawn) <= MOST_WORDS:
        middle = (domain[0] + domain[1]) / 2
        ink = alt.when(alt.datum.value > middle).then(alt.value("black")).otherwise(alt.value("white"))
        layers.append(base.mark_text(fontSize=11).encode(text="words:N", color=ink))
    return alt.layer(*layers).properties(height=alt.Step(CELL_HEIGHT))


def _domain(values: pd.Series, quantity: str) -> list[float]:
    """Ends of the colour scale: 0 to 100 % for shares, so that charts of several steps can be compared."""
    whole = 1.0 if quantity in formats.SHARES else 100.0 if quantity.endswith("(%)") else float(values.max())
    return [min(0.0, float(values.min())), max(whole, float(values.max()))]


def _bars(drawn: pd.DataFrame, title: str, tooltip: list[alt.Tooltip]) -> alt.LayerChart | alt.FacetChart:
    base = alt.Chart(drawn).encode(
        x=alt.X("value:Q", title=title, scale=alt.Scale(zero=True)),
        y=alt.Y("layer:N", title=None, sort=None, axis=alt.Axis(labelLimit=2 * LABEL_WIDTH)),
        tooltip=tooltip,
    )
    bars = base.mark_bar(color=FAMILY_COLOURS[Family.QUANTIZATION])
    return alt.layer(bars).properties(height=alt.Step(BAR_HEIGHT))
