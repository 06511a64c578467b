"""Filters, limits and weights of the trade-offs: in a box that is drawn when it is open, in the address always."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import addressed
from app.charts.axes import Axis
from core.measured import difference_unit
from core.store.thinning import Logs

FAMILIES, MODELS, STAGE, MOST_MB, MOST_MS = "families", "models", "stage", "most_mb", "most_ms"


@dataclass(frozen=True)
class Filters:
    """What is chosen: values of filters, limits and weights by column, and whether axes are logarithmic."""

    families: tuple[str, ...]
    models: tuple[str, ...]
    text: str
    limits: dict[str, float]
    weights: dict[str, float]
    logs: Logs
    state: dict[str, Any]  # by the names in the address


@dataclass(frozen=True)
class _Names:
    """What settings are called that belong to one score, or to one axis."""

    score_limit: str
    size_worth: str
    time_worth: str
    log_x: str
    log_y: str


def show(
    task: Mapping[str, Any], kinds: Callable[[], Sequence[tuple[str, str]]], x: Axis, y: Axis, *, timed: bool
) -> Filters:
    """The box, and what is chosen in it or by the address; `kinds` reads the (family, model) of its stages."""
    score = task["score_name"]
    names = _Names(
        f"limit.{score}", f"size_worth.{score}", f"latency_worth.{score}", f"log.{x.column}", f"log.up.{y.column}"
    )
    logs = Logs(addressed.flag(names.log_x, x.log), addressed.flag(names.log_y, y.log))
    n_set = sum(bool(addressed.text(name)) for name in (FAMILIES, MODELS, STAGE, MOST_MB, MOST_MS, names.score_limit))
    # the title never changes: a box with another title is another box to Streamlit, and closes under the user's hands
    box = st.expander("Filter and limits", icon=":material/tune:", key="filters", on_change="rerun")
    if box.open:
        with box:
            _draw(task, kinds(), names, logs, timed=timed)
    else:
        st.caption(f"{n_set} set." if n_set else "A limit brings a recommendation.")
    return _chosen(names, logs, timed=timed)


def _chosen(names: _Names, logs: Logs, *, timed: bool) -> Filters:
    families, models, text = addressed.several(FAMILIES), addressed.several(MODELS), addressed.text(STAGE)
    numbers = {
        name: addressed.number(name)
        for name in (MOST_MB, MOST_MS, names.score_limit, names.size_worth, names.time_worth)
    }
    bounds = (("size_bytes", MOST_MB, 1e6), ("p50_ms", MOST_MS, 1.0), ("score", names.score_limit, 1.0))
    limits = {column: bound * unit for column, name, unit in bounds if (bound := numbers[name]) is not None}
    worths = (("size_bytes", names.size_worth), ("p50_ms", names.time_worth))
    weights = {column: worth for column, name in worths if (worth := numbers[name])}
    if not timed:
        limits.pop("p50_ms", None)
        weights.pop("p50_ms", None)
    state = {FAMILIES: families, MODELS: models, STAGE: text, **numbers, names.log_x: logs.x, names.log_y: logs.y}
    return Filters(tuple(families), tuple(models), text, limits, weights, logs, state)


def _draw(
    task: Mapping[str, Any],
    kinds: Sequence[tuple[str, str]],
    names: _Names,
    logs: Logs,
    *,
    timed: bool,
) -> None:
    left, middle, right = st.columns(3)
    with left:
        _several("Families", FAMILIES, [family for family, _ in kinds])
    with middle:
        _several("Models", MODELS, [model for _, model in kinds])
    right.text_input("Stage contains", placeholder="2:4, rtn, bf16 …", **addressed.widget(STAGE, addressed.text(STAGE)))
    first, second, third, fourth = st.columns(4)
    score, unit = task["score_name"], task["score_unit"]
    least = "at least" if task["higher_is_better"] else "at most"
    with first:
        _number("Size at most (MB)", MOST_MB, placeholder="any; 50 kB is 0.05")
    with second:
        _number("Latency at most (ms)", MOST_MS, disabled=not timed)
    with third:
        _number(f"{score.capitalize()} {least} ({unit})", names.score_limit, min_value=None)
    fourth.toggle("Logarithmic across", **addressed.widget(names.log_x, logs.x))
    fourth.toggle("Logarithmic up", **addressed.widget(names.log_y, logs.y))
    worth_in = difference_unit(unit)
    more: dict[str, Any] = {
        "placeholder": "nothing",
        "help": f"How much {score} you would give for it: the score alone does not decide then.",
    }
    with first:
        _number(f"Half the size is worth ({worth_in})", names.size_worth, **more)
    with second:
        _number(f"Half the latency is worth ({worth_in})", names.time_worth, disabled=not timed, **more)


def _several(label: str, name: str, offered: Sequence[str]) -> None:
    chosen = addressed.several(name)
    options = sorted({*offered, *chosen})
    st.multiselect(label, options, placeholder="all", **addressed.widget(name, chosen))


def _number(label: str, name: str, *, min_value: float | None = 0.0, placeholder: str = "any", **more: Any) -> None:
    st.number_input(
        label,
        min_value=min_value,
        value=None,
        format="%g",
        placeholder=placeholder,
        **addressed.widget(name, addressed.number(name)),
        **more,
    )
