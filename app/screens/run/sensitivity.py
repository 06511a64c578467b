"""The run's sensitivity tables: which layers hurt, and what any budget is predicted to cost."""

from typing import Any

import pandas as pd
import streamlit as st

from app.actions.actor import Actor
from app.charts.sensitivity import histogram, outlier_chart, sensitivity_map
from app.screens.run import budgets
from app.text import formats
from app.text.stages import name_of
from core.allocation.table import SensitivityTable

METHODS = {
    "kl": "measured: the KL divergence of the predictions with only these layers quantized",
    "loss": "measured: the increase of the loss with only these layers quantized",
    "fisher": "estimated from squared gradients (½ Σ g² ΔW², empirical Fisher information)",
    "hessian": "estimated from the curvature (½ mean Hessian trace × ‖ΔW‖²)",
}


def show(run: dict[str, Any], stages: pd.DataFrame, actor: Actor) -> None:
    """The table of a sensitivity step, and budgets solved with it."""
    found = {name_of(stage): stage for stage in stages.to_dict("records") if _table_of(stage) is not None}
    if not found:
        st.info("No step of this run measured sensitivity. Add the step sensitivity to find out which layers hurt.")
        return
    chosen = next(iter(found)) if len(found) == 1 else st.selectbox("Step", list(found), key="sensitivity_of")
    stage = found[chosen]
    table = SensitivityTable.from_json(stage["details"]["sensitivity"])
    budgets.show_verdict(stages, stage)
    budgets.show(run, stage, table, actor)
    st.subheader("Loss increase by layer and format", anchor=False)
    st.altair_chart(sensitivity_map(table), width="stretch")
    examples = formats.plural(table.examples, "calibration example")
    st.caption(
        f"In nats, {METHODS[table.method]}, on {examples}. Layers that share their input are one row, since they get "
        "one format. gN: N inputs share a scale; otherwise all inputs of an output channel do."
    )
    _show_profiles(stage["details"].get("profiles") or [])


def _table_of(stage: dict[str, Any]) -> dict[str, Any] | None:
    details = stage["details"] if isinstance(stage["details"], dict) else {}
    return details.get("sensitivity") if stage["position"] >= 0 else None


def _show_profiles(profiles: list[dict[str, Any]]) -> None:
    if not profiles:
        return
    st.subheader("Outliers", anchor=False)
    st.altair_chart(outlier_chart(profiles), width="stretch")
    st.caption(
        "A uniform grid spends its levels on the range: the further the largest value sticks out, the coarser the grid "
        "for all others. Normally distributed values have a ratio of 4 to 5."
    )
    names = [profile["name"] for profile in profiles]
    worst = max(range(len(profiles)), key=lambda i: profiles[i]["weights"]["outlier_ratio"])
    layer = st.selectbox("Histograms of layer", names, index=worst, key="profile_of")
    profile = profiles[names.index(layer)]
    left, right = st.columns(2)
    left.altair_chart(histogram(profile["weights"], "Weights"), width="stretch")
    right.altair_chart(histogram(profile["inputs"], "Inputs"), width="stretch")
    st.caption("Counts on a logarithmic axis. The outermost bins also count what lies beyond them.")
