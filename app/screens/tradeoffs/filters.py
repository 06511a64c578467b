"""Filters, limits and conditions of Trade-offs: in an expander drawn when open, and always in the URL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.charts.axes import Axis
from app.screens.tradeoffs import limits
from app.screens.tradeoffs.plot import Plot
from app.text import formats
from app.text.conditions import condition_name
from app.web import url_state
from core.quantities import MEDIAN, SIZE
from core.scores import difference_unit
from core.store.tradeoffs.filters import Conditions, PointFilter
from core.store.tradeoffs.thinning import Logs

FAMILIES, MODELS, STAGE = "families", "models", "stage"
TIMED, MARK_SIZE, SEEDS = "timed", "size", "seeds"
ONE_MARK, EACH = "one mark", "each"


@dataclass(frozen=True)
class Filters:
    """The chosen filters, limits and weights by column, and how points are timed and drawn."""

    families: tuple[str, ...]
    models: tuple[str, ...]
    text: str
    limits: dict[str, float]
    weights: dict[str, float]
    logs: Logs
    conditions: Conditions | None
    size: Axis | None
    as_one: bool
    state: dict[str, Any]  # URL state, by parameter

    def points_of(self, project_id: int, task_hash: str) -> PointFilter:
        """Which points of the task match."""
        return PointFilter(
            project_id,
            task_hash,
            models=self.models,
            families=self.families,
            text=self.text,
            conditions=self.conditions,
        )

    @property
    def kind(self) -> str:
        """What a mark stands for."""
        return "recipe" if self.as_one else "stage"


@dataclass(frozen=True)
class _Names:
    """URL parameters of settings that belong to one score, or to one axis."""

    size_worth: str
    time_worth: str
    log_x: str
    log_y: str


def show(plot: Plot, kinds: Callable[[], Sequence[tuple[str, str]]], timed: Sequence[Conditions]) -> Filters:
    """Draw the expander; returns what is chosen in it or by the URL.

    `kinds` reads the (family, model) of the task's stages, `timed` are the conditions of their latencies.
    """
    score, x, y = plot.task["score_name"], plot.x.column, plot.y.column
    names = _Names(f"size_worth.{score}", f"latency_worth.{score}", f"log.{x}", f"log.up.{y}")
    chosen = _chosen(names, timed, plot)
    # the title is constant: Streamlit takes an expander with another title for a new one, which starts closed
    box = st.expander("Filters, limits and conditions", icon=":material/tune:", key="filters", on_change="rerun")
    if box.open:
        with box:
            _draw_shown(chosen, timed, plot.titles())
            _draw_filters(kinds(), chosen.logs, names)
            _draw_limits(plot.task, names, timed=bool(timed))
    else:
        st.caption(_summary(chosen, plot.task))
    return chosen


def _summary(chosen: Filters, task: Mapping[str, Any]) -> str:
    """What the closed expander holds."""
    timed = [f"Latency of {formats.plain(condition_name(chosen.conditions))}."] if chosen.conditions else []
    settings = (FAMILIES, MODELS, STAGE, *(field.name for field in limits.list_fields(task)), MARK_SIZE)
    n_set = sum(bool(url_state.text(name)) for name in settings) + (not chosen.as_one)
    return " ".join([*timed, f"{n_set} active." if n_set else "Set a limit to get a recommendation."])


def _chosen(names: _Names, timed: Sequence[Conditions], plot: Plot) -> Filters:
    families, models, text = url_state.several(FAMILIES), url_state.several(MODELS), url_state.text(STAGE)
    fields = list(limits.list_fields(plot.task))
    asked_numbers = (*(field.name for field in fields), names.size_worth, names.time_worth)
    numbers = {name: url_state.number(name) for name in asked_numbers}
    bounds = {field.column: field.bound(typed) for field in fields if (typed := numbers[field.name]) is not None}
    worths = (("size_bytes", names.size_worth), ("p50_ms", names.time_worth))
    weights = {column: worth for column, name in worths if (worth := numbers[name])}
    if not timed:
        bounds.pop("p50_ms", None)
        weights.pop("p50_ms", None)
    logs = Logs(url_state.flag(names.log_x, plot.x.log), url_state.flag(names.log_y, plot.y.log))
    asked = url_state.text(TIMED)
    conditions = next((c for c in timed if condition_name(c) == asked), timed[0] if timed else None)
    size = plot.titled(url_state.text(MARK_SIZE))
    as_one = url_state.text(SEEDS) != EACH
    state = {
        FAMILIES: families,
        MODELS: models,
        STAGE: text,
        **numbers,
        names.log_x: logs.x,
        names.log_y: logs.y,
        TIMED: condition_name(conditions) if conditions else None,
        MARK_SIZE: size and size.title,
        SEEDS: ONE_MARK if as_one else EACH,
    }
    return Filters(tuple(families), tuple(models), text, bounds, weights, logs, conditions, size, as_one, state)


def _draw_shown(chosen: Filters, timed: Sequence[Conditions], sizes: Sequence[str]) -> None:
    left, middle, right = st.columns([2, 1, 1])
    if chosen.conditions:
        left.selectbox(
            "Latency conditions",
            [condition_name(conditions) for conditions in timed],
            help="Only latencies measured under the same conditions are comparable. The most frequent come first.",
            **url_state.widget(TIMED, condition_name(chosen.conditions)),
        )
    middle.selectbox(
        "Mark size",
        sizes,
        index=None,
        placeholder="all equal",
        **url_state.widget(MARK_SIZE, chosen.size and chosen.size.title),
    )
    right.segmented_control(
        "Seeds",
        [ONE_MARK, EACH],
        required=True,
        help="Show stages that differ only in their seed as their mean with its 95 % interval, or each one.",
        **url_state.widget(SEEDS, ONE_MARK if chosen.as_one else EACH),
    )


def _draw_filters(kinds: Sequence[tuple[str, str]], logs: Logs, names: _Names) -> None:
    first, second, third, fourth = st.columns(4)
    with first:
        _several("Families", FAMILIES, [family for family, _ in kinds])
    with second:
        _several("Models", MODELS, [model for _, model in kinds])
    third.text_input("Stage contains", placeholder="2:4, rtn, bf16 …", **url_state.widget(STAGE, url_state.text(STAGE)))
    fourth.toggle("Logarithmic X axis", **url_state.widget(names.log_x, logs.x))
    fourth.toggle("Logarithmic Y axis", **url_state.widget(names.log_y, logs.y))


def _draw_limits(task: Mapping[str, Any], names: _Names, *, timed: bool) -> None:
    score, points = task["score_name"], difference_unit(task["score_unit"])
    more: dict[str, Any] = {
        "placeholder": "none",
        "help": f"How much {score} you would trade for it. The recommendation then weighs both, not the score alone.",
    }
    fields = list(limits.list_fields(task))
    for column, field in zip(st.columns(len(fields)), fields, strict=True):
        with column:
            hint = "any (0.05 is 50 kB)" if field.column == SIZE.name else "any"
            least = 0.0 if field.is_positive else None
            _number(field.label, field.name, min_value=least, placeholder=hint, disabled=field.is_timed and not timed)
            if field.column == SIZE.name:
                _number(f"Value of halving the size ({points})", names.size_worth, **more)
            elif field.column == MEDIAN.name:
                _number(f"Value of halving the latency ({points})", names.time_worth, disabled=not timed, **more)


def _several(label: str, name: str, offered: Sequence[str]) -> None:
    chosen = url_state.several(name)
    options = sorted({*offered, *chosen})
    st.multiselect(label, options, placeholder="all", **url_state.widget(name, chosen))


def _number(label: str, name: str, *, min_value: float | None = 0.0, placeholder: str = "any", **more: Any) -> None:
    st.number_input(
        label,
        min_value=min_value,
        value=None,
        format="%g",
        placeholder=placeholder,
        **url_state.widget(name, url_state.number(name)),
        **more,
    )
