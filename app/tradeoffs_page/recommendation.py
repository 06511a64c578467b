"""What to ship: the best stage within the limits, the runner-up, and what moving each limit would change."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import artifacts, data, reasons
from app.charts.axes import Axis
from app.compare_page.data import load_paired
from core.decision.limits import Limit
from core.measured import Comparison
from core.store.tradeoffs import PointFilter


def show(
    chosen: PointFilter,
    limits: Mapping[str, float],
    weights: dict[str, float],
    axes: Mapping[str, Axis],
    higher_is_better: bool,
    score_name: str,
) -> None:
    """Draw the decision among the stages that the filter leaves; limits and weights are by column."""
    bounds = tuple(
        Limit(column, "at most" if axes[column].better == "less" else "at least", bound)
        for column, bound in limits.items()
    )
    decision, named, reference = data.load_decision(chosen, bounds, weights, higher_is_better)
    best = None if decision.best is None else named[decision.best]
    if best is None:
        st.warning(
            "No stage keeps all limits. Loosen one, or queue a recipe that compresses more.", icon=":material/block:"
        )
    else:
        told = reasons.recommendation(best, reference, decision.n_feasible, axes, weighed=bool(weights))
        st.success(told, icon=":material/recommend:")
    said = [reasons.moved(margin, named, best, axes) for margin in decision.margins]
    if best is not None and decision.runner_up is not None:
        behind = named[decision.runner_up]
        said.insert(0, reasons.runner_up(behind, best, axes, _tested_against(behind, best, score_name)))
    if said:
        st.markdown("\n".join(f"- {sentence}" for sentence in said))
    if best is not None:
        st.page_link(
            "screens/run.py",
            label=f"Open run {best['run_id']}",
            icon=":material/arrow_forward:",
            query_params={"run": str(best["run_id"])},
        )


def _tested_against(second: dict[str, Any], best: dict[str, Any], score_name: str) -> Comparison | None:
    """The paired test of two stages' scores, where the results by example of both are on this host."""
    if not artifacts.store().is_local:
        return None  # a page does not wait for weights to be copied here
    keys = data.load_keys((second["stage_id"], best["stage_id"]))
    found = load_paired(score_name, keys[second["stage_id"]], keys[best["stage_id"]])
    return None if isinstance(found, str) else found
