"""Another budget for a sensitivity table: the predicted frontier, a slider, and queueing a point as a run."""

from typing import Any, get_args

import numpy as np
import pandas as pd
import streamlit as st

from app.actions import budgets
from app.actions.actor import Actor
from app.charts.sensitivity import KINDS, frontier_chart
from app.components import refusal_toast, wrapped_table
from app.queries.catalogue import load_catalogue
from app.queries.runs import forget_runs
from app.queries.sensitivity import load_choices
from app.text import formats
from core.allocation.choice import Choice, frontier, total
from core.allocation.table import DENSE, BudgetUnit, SensitivityTable
from core.allocation.units import UNITS
from core.errors import SpecError
from core.spec.model import RunSpec

STEPS = 200  # of the slider
MIXED, UNIFORM, EDGES, MEASURED = KINDS


def show(run: dict[str, Any], stage: dict[str, Any], table: SensitivityTable, actor: Actor) -> None:
    """The frontier of a table in a unit, a budget, and the button that queues it."""
    st.subheader("Another budget", anchor=False)
    units: list[BudgetUnit] = list(get_args(BudgetUnit))
    unit = st.segmented_control(
        "Budget of", units, default=units[0], required=True, format_func=lambda u: UNITS[u].title, key="budget_unit"
    )
    unit = unit or units[0]
    low, high, step = slider_range(table, unit)
    budget = st.slider(
        f"Budget, {UNITS[unit].symbol}", low, high, _between(low, high, step), step, format="%.4g", key=f"budget_{unit}"
    )
    choice = table.solve(unit, budget)
    baselines = table.baselines(unit, budget)
    measured = load_choices(actor.project.id, int(stage["stage_id"]))
    _show_cards(table, choice, baselines)
    points = pd.DataFrame([*predicted_points(table, unit), *_measured_points(measured, unit)])
    st.altair_chart(frontier_chart(points, budget, f"{UNITS[unit].title} ({UNITS[unit].symbol})"), width="stretch")
    st.caption(_caption(table, unit))
    _show_queue(run, stage, unit, budget, actor)
    with st.expander("Formats of the layers at this budget"):
        wrapped_table.show(format_table(table, choice))
    if measured:
        st.markdown("**Predicted and measured**")
        _show_measured(measured)


def slider_range(table: SensitivityTable, unit: BudgetUnit) -> tuple[float, float, float]:
    """The least budget, the budget of the dearest quantized format, and the step between the slider's stops."""
    costs = table.costs(unit)
    cheapest = frontier(table.allowed_losses(), costs)[0]
    uniform = [table.cost(each, unit) for each in table.uniform_choices()]
    low = table.cost(cheapest, unit)
    high = max([cost for index, cost in enumerate(uniform) if index != DENSE])
    high = high if high > 1.02 * low else max(*uniform, 1.1 * low)
    step = 10.0 ** np.floor(np.log10((high - low) / STEPS))
    return float(np.ceil(low / step) * step), float(np.ceil(high / step) * step), float(step)


def _between(low: float, high: float, step: float) -> float:
    return round(low + round((high - low) / 3 / step) * step, 12)


def predicted_points(table: SensitivityTable, unit: BudgetUnit) -> list[dict[str, Any]]:
    """Points of the frontier, of uniform formats, and of the rule of thumb, for `frontier_chart`."""
    high = slider_range(table, unit)[1]
    points = []
    kinds: list[tuple[str, list[Choice]]] = [
        (MIXED, frontier(table.allowed_losses(), table.costs(unit))),
        (UNIFORM, table.uniform_choices()),
        (EDGES, table.edge_choices()),
    ]
    for kind, choices in kinds:
        for choice in choices:
            cost = table.cost(choice, unit)
            loss = total(np.nan_to_num(np.maximum(table.losses, 0), nan=np.inf), choice)
            if cost <= high * (1 + 1e-9) and np.isfinite(loss):
                named = kind == UNIFORM and _is_best_of_its_bits(table, int(choice[0]))
                label = _label(table, choice, kind)
                points.append({"kind": kind, "cost": cost, "loss": loss, "label": label, "named": named})
    return points


def _is_best_of_its_bits(table: SensitivityTable, index: int) -> bool:
    """Whether no other format of as many bits has less predicted loss: only one of them is named in the chart."""
    losses = np.nan_to_num(np.maximum(table.losses, 0), nan=np.inf).sum(axis=0)
    alike = [i for i, each in enumerate(table.formats) if each.bits == table.formats[index].bits and i != DENSE]
    return index == min(alike, key=lambda i: losses[i], default=index)


def _label(table: SensitivityTable, choice: Choice, kind: str) -> str:
    names = [table.formats[index].name for index in choice]
    used = [each.name for each in table.formats if each.name in names]
    if kind == UNIFORM or len(used) == 1:
        return used[0]
    return ", ".join(f"{name} × {names.count(name)}" for name in used)


def _measured_points(measured: list[dict[str, Any]], unit: BudgetUnit) -> list[dict[str, Any]]:
    rows = [(told, told["rows"][0]) for told in measured]
    return [
        {"kind": MEASURED, "cost": row[unit], "loss": row["kl"], "label": f"run {told['run_id']}", "named": True}
        for told, row in rows
        if row["kl"] is not None
    ]


def _show_cards(table: SensitivityTable, choice: Choice, baselines: dict[str, Choice]) -> None:
    row = st.container(horizontal=True)
    choices = {MIXED: choice, **baselines}
    for name, title in ((MIXED, "Mixed"), (UNIFORM, "Uniform"), (EDGES, "First and last at 8 bit")):
        fits = name in choices
        loss = formats.nats(table.predicted(choices[name])) if fits else formats.NOTHING
        note = _label(table, choices[name], name) if fits else "does not fit"
        row.metric(f"{title}, predicted", loss, note, delta_color="off", delta_arrow="off", border=True)


def _caption(table: SensitivityTable, unit: BudgetUnit) -> str:
    notes = ["Predicted: the sum of the layers' own loss increases, as if they did not affect one another."]
    if unit == "milliseconds":
        what = "token" if table.rows == 1 else "example"
        notes.append(
            f"Times are of the layers alone, for one {what}, on {table.hardware}. A format without a kernel there "
            "takes the time of the unquantized layer."
        )
    if unit == "bit-operations":
        notes.append("Bit operations are multiply-accumulates × bits of weights × bits of activations.")
    return " ".join(notes)


def _show_queue(run: dict[str, Any], stage: dict[str, Any], unit: BudgetUnit, budget: float, actor: Actor) -> None:
    settings = {"unit": unit, "budget": budget}
    label = f"Queue {budget:.4g} {UNITS[unit].symbol} as a run"
    off = not actor.may_submit
    if st.button(label, type="primary", icon=":material/playlist_add:", disabled=off, key="queue_budget"):
        with refusal_toast.show_refusals(SpecError):
            queued = budgets.queue_budget(
                actor, run["id"], RunSpec.parse(run["spec"]), int(stage["position"]), settings, load_catalogue()
            )
            st.session_state["queued_budget"] = (run["id"], queued)
            forget_runs()
    source, queued_run = st.session_state.get("queued_budget", (None, None))
    if source == run["id"]:
        st.page_link(
            "screens/run/page.py",
            label=f"Queued as run {queued_run}. It reuses the sensitivity table.",
            icon=":material/check_circle:",
            query_params={"run": str(queued_run)},
        )


def format_table(table: SensitivityTable, choice: Choice) -> pd.DataFrame:
    """The format, size and predicted loss increase of each group."""
    return pd.DataFrame(
        {
            "Layers": group.name,
            "Format": table.formats[index].name,
            "Size": formats.size(group.bytes[index]),
            "Loss increase": formats.nats(group.losses[index]),
        }
        for group, index in zip(table.groups, choice, strict=True)
    )


def show_verdict(stages: pd.DataFrame, sensitivity: dict[str, Any]) -> None:
    """What the run's own mixed-precision step chose from this table, and whether that beats the baselines."""
    after = stages[stages["position"] == sensitivity["position"] + 1].to_dict("records")
    told = after[0]["details"].get("allocation") if after and isinstance(after[0]["details"], dict) else None
    if told is None:
        return
    st.subheader(f"Choice at {formats.number(told['budget'])} {UNITS[told['unit']].symbol}", anchor=False)
    if told["wins"]:
        st.success(told["verdict"], icon=":material/check_circle:")
    else:
        st.warning(told["verdict"], icon=":material/balance:")
    wrapped_table.show(choice_table(told))
    st.caption("Measured on calibration data. The Stages tab has the divergence on the test data.")


def choice_table(told: dict[str, Any]) -> pd.DataFrame:
    """The choices that a mixed-precision step compared: predicted and measured loss, and every cost."""
    return pd.DataFrame(
        {
            "Choice": f"{row['name']} {row['format']}".strip(),
            "Predicted": formats.nats(row["predicted"]),
            "Measured KL": formats.nats(row["kl"]),
            "Average bits": formats.number(row["average-bits"]),
            "Size": f"{formats.number(row['megabytes'])} MB",
            "Layers' time": formats.milliseconds(row["milliseconds"]),
        }
        for row in told["rows"]
    )


def _show_measured(measured: list[dict[str, Any]]) -> None:
    rows = [
        {
            "Run": f"run?run={told['run_id']}",
            "Budget": told["label"],
            "Predicted": formats.nats(told["rows"][0]["predicted"]),
            "Measured on calibration data": formats.nats(told["rows"][0]["kl"]),
            "Measured on test data": formats.nats(told["kl"]),
            "Against the baselines": "better" if told["wins"] else "not better",
        }
        for told in measured
    ]
    link = st.column_config.LinkColumn(display_text=r"run=(\d+)", width="small")
    st.dataframe(rows, hide_index=True, column_config={"Run": link})
