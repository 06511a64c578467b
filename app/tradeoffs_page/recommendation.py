"""What to ship: the best stage within the limits, the runner-up, and what moving each limit would change."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import artifacts, data, point_data, reasons
from app.charts.annotated import errors
from app.charts.axes import Axis
from app.compare_page.data import load_paired
from core.comparison.seeds import welch
from core.decision.limits import Limit
from core.measured import Comparison
from core.store.point_columns import TIMED
from core.store.point_filter import PointFilter


def show(
    chosen: PointFilter,
    limits: Mapping[str, float],
    weights: dict[str, float],
    axes: Mapping[str, Axis],
    higher_is_better: bool,
    score_name: str,
    drawn: pd.DataFrame,
    *,
    as_one: bool,
) -> None:
    """Draw the decision among the stages that the filter leaves; limits and weights are by column.

    With `as_one` seeds of one recipe are judged by their mean; `drawn` are then the chart's recipes, from which tests
    know how much seeds vary.
    """
    bounds = tuple(
        Limit(column, "at most" if axes[column].better == "less" else "at least", bound)
        for column, bound in limits.items()
    )
    decision, named, reference = point_data.load_decision(chosen, bounds, weights, higher_is_better, as_one=as_one)
    best, behind = (None if at is None else named[at] for at in (decision.best, decision.runner_up))
    tested = None if best is None or behind is None else _tested(behind, best, axes["score"], score_name, drawn)
    kind = "recipe" if as_one else "stage"
    spoken_of = [point for point in (best, behind) if point is not None]
    if TIMED.keys() & {*limits, *weights}:
        spoken_of += named.values()
    unsure = reasons.disturbed(spoken_of)
    if best is None:
        st.warning(
            f"No {kind} keeps all limits. Loosen one, or queue a recipe that compresses more. {unsure}".strip(),
            icon=":material/block:",
        )
    else:
        told = reasons.recommendation(
            best, reference, decision.n_feasible, axes, kind=kind, weighed=bool(weights), tested=tested
        )
        st.success(f"{told} {unsure}".strip(), icon=":material/recommend:")
    said = [reasons.moved(margin, named, best, axes, kind=kind) for margin in decision.margins]
    if best is not None and behind is not None:
        said.insert(0, reasons.runner_up(behind, best, axes, tested))
    if said:
        st.markdown("\n".join(f"- {sentence}" for sentence in said))
    if best is not None:
        st.page_link(
            "screens/run.py",
            label=f"Open run {best['run_id']}",
            icon=":material/arrow_forward:",
            query_params={"run": str(best["run_id"])},
        )


def _tested(
    second: dict[str, Any], best: dict[str, Any], score: Axis, score_name: str, drawn: pd.DataFrame
) -> Comparison | None:
    """The test of second - best: of means over seeds by how these vary, of single stages by their answers."""
    pair = [second, best]
    if max(point.get("n_seeds", 1) for point in pair) == 1:
        return _paired(second, best, score_name)
    others = drawn[~drawn["stage_id"].isin([point["stage_id"] for point in pair])]
    spreads, dfs = errors(pd.concat([others, pd.DataFrame(pair)]), score)
    return welch([point["score"] for point in pair], spreads[-2:].tolist(), dfs[-2:].tolist())


def _paired(second: dict[str, Any], best: dict[str, Any], score_name: str) -> Comparison | None:
    """The paired test of two stages' scores, where the results by example of both are on this host."""
    if not artifacts.store().is_local:
        return None  # a page does not wait for weights to be copied here
    keys = data.load_keys((second["stage_id"], best["stage_id"]))
    found = load_paired(score_name, keys[second["stage_id"]], keys[best["stage_id"]])
    return None if isinstance(found, str) else found
