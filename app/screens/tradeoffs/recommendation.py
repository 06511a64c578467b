"""What to ship: the best stage within the limits, the runner-up, and what moving each limit would change."""

from typing import Any

import pandas as pd
import streamlit as st

from app.charts.annotated import list_errors
from app.charts.axes import Axis
from app.queries import artifacts, tradeoffs
from app.queries.compare import load_paired
from app.queries.stages import load_keys
from app.screens.tradeoffs import explanation
from app.screens.tradeoffs.filters import Filters
from app.screens.tradeoffs.plot import Plot
from core.analysis.seeds import welch
from core.measured import Comparison
from core.store.tradeoffs.columns import TIMED
from core.store.tradeoffs.filters import PointFilter


def show(chosen: PointFilter, asked: Filters, plot: Plot, drawn: pd.DataFrame) -> None:
    """Draw the decision among the stages that match the filter.

    Where the seeds of a recipe are one mark, they are judged by their mean; `drawn` are then the chart's recipes, from
    which tests estimate the variance between seeds.
    """
    axes, higher_is_better = plot.axes, bool(plot.task["higher_is_better"])
    bounds = tuple(axes[column].limit(bound) for column, bound in asked.limits.items())
    decision, named, reference = tradeoffs.load_decision(
        chosen, bounds, asked.weights, higher_is_better, as_one=asked.as_one
    )
    best, behind = (None if at is None else named[at] for at in (decision.best, decision.runner_up))
    unsure = _disturbed(best, behind, named, asked)
    said = [explanation.describe_move(margin, named, best, axes, kind=asked.kind) for margin in decision.margins]
    if best is None:
        remedy = "Relax one, or submit a recipe that compresses more."
        st.warning(f"No {asked.kind} meets all limits. {remedy} {unsure}".strip(), icon=":material/block:")
    else:
        tested = None if behind is None else _tested(behind, best, plot, drawn)
        sentence = explanation.recommend(
            best, reference, decision.n_feasible, axes, kind=asked.kind, weighed=bool(asked.weights), tested=tested
        )
        st.success(f"{sentence} {unsure}".strip(), icon=":material/recommend:")
        if behind is not None:
            said.insert(0, explanation.describe_runner_up(behind, best, axes, tested))
    if said:
        st.markdown("\n".join(f"- {sentence}" for sentence in said))
    if best is not None:
        _link(best["run_id"])


def _link(run_id: int) -> None:
    st.page_link(
        "screens/run/page.py",
        label=f"Open run {run_id}",
        icon=":material/arrow_forward:",
        query_params={"run": str(run_id)},
    )


def _disturbed(
    best: dict[str, Any] | None, behind: dict[str, Any] | None, named: dict[int, dict[str, Any]], asked: Filters
) -> str:
    """The warning about disturbed latencies among the points shown and those that decided."""
    shown = [point for point in (best, behind) if point is not None]
    decided = named.values() if TIMED.keys() & {*asked.limits, *asked.weights} else ()
    return explanation.describe_disturbed([*shown, *decided])


def _tested(second: dict[str, Any], best: dict[str, Any], plot: Plot, drawn: pd.DataFrame) -> Comparison | None:
    """The test of second - best: Welch's for means over seeds, the paired one for single stages."""
    pair = [second, best]
    if max(point.get("n_seeds", 1) for point in pair) == 1:
        return _paired(second, best, plot.task["score_name"])
    return _of_means(pair, plot.axes["score"], drawn)


def _of_means(pair: list[dict[str, Any]], score: Axis, drawn: pd.DataFrame) -> Comparison | None:
    others = drawn[~drawn["stage_id"].isin([point["stage_id"] for point in pair])]
    spreads, dfs = list_errors(pd.concat([others, pd.DataFrame(pair)]), score)
    return welch([point["score"] for point in pair], spreads[-2:].tolist(), dfs[-2:].tolist())


def _paired(second: dict[str, Any], best: dict[str, Any], score_name: str) -> Comparison | None:
    """The paired test of two stages' scores, if the per-example results of both are on this host."""
    if not artifacts.store().is_local:
        return None  # a page does not wait for weights to be copied here
    keys = load_keys((second["stage_id"], best["stage_id"]))
    found = load_paired(score_name, keys[second["stage_id"]], keys[best["stage_id"]])
    return None if isinstance(found, str) else found
