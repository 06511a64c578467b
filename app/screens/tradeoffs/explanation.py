"""A decision as Markdown: what to ship, the runner-up, and what moving each limit would change. Without Streamlit."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.charts.axes import Axis
from app.text import formats
from core.analysis.decision.choice import Margin, Move
from core.measured import SIGNIFICANT, Comparison

Point = Mapping[str, Any]
Axes = Mapping[str, Axis]


def recommend(
    best: Point,
    reference: Point | None,
    n_feasible: int,
    axes: Axes,
    *,
    kind: str = "stage",
    weighed: bool = False,
    tested: Comparison | None = None,
) -> str:
    """The best stage within the limits: what it is, and what it saves and costs relative to its reference.

    `kind` is what was chosen from, "recipe" where seeds are merged; `tested` is the runner-up's score - the best one's.
    """
    score = axes["score"]
    best_of = "the best compromise" if weighed else "the best"
    how_many = f"the only {kind}" if n_feasible == 1 else f"{best_of} of the {formats.plural(n_feasible, kind)}"
    facts = [f"{score.words} {score.read(best['score'])}{_against_reference(best, reference, score)}"]
    facts.append(f"{formats.size(best['size_bytes'])}{_times(best['compression_ratio'], 'smaller', 'larger')}")
    if best.get("p50_ms") is not None:
        facts.append(f"{formats.milliseconds(best['p50_ms'])}{_times(best['speed_up'], 'faster', 'slower')}")
    sentence = f"{_name(best)} is {how_many} within the limits: {formats.plain('; '.join(facts))}."
    if tested is None or tested.p_value < SIGNIFICANT:
        return sentence
    alike = f"{score.title} does not differ significantly from the runner-up's: {formats.p_value(tested.p_value)}."
    return f"{sentence} {formats.plain(alike)}"


def describe_disturbed(points: Iterable[Point]) -> str:
    """Which of these points were timed while the machine was busy, and what to do; empty if none was."""
    names = list(dict.fromkeys(_name(point) for point in points if point.get("disturbed")))
    if not names:
        return ""
    *others, last = names
    who = f"{', '.join(others)} and {last} were" if others else f"{last} was"
    return f"The machine was busy while {who} timed. Requeue on an idle machine to confirm the latency."


def describe_runner_up(second: Point, best: Point, axes: Axes, tested: Comparison | None) -> str:
    """The second best, and how it differs from the best; `tested` is second - best on the same examples."""
    score = axes["score"]
    change = formats.score_change(second["score"] - best["score"], score.units[0][1])
    facts = [f"{score.words} {score.read(second['score'])} ({change}{_certainty(tested)})"]
    for column, more, less in (("size_bytes", "smaller", "larger"), ("p50_ms", "faster", "slower")):
        if second.get(column) and best.get(column):
            facts.append(_times(best[column] / second[column], more, less).strip(" ()"))
    return f"Runner-up: {_name(second)}: {formats.plain('; '.join(filter(None, facts)))}."


def describe_move(
    margin: Margin, named: Mapping[int, Point], best: Point | None, axes: Axes, *, kind: str = "stage"
) -> str:
    """What moving one limit would change, the others fixed; `named` are the points of its moves by their index.

    Values are rounded so that entering one as the new limit gives what the sentence says.
    """
    limit = margin.limit
    axis = axes[limit.quantity]
    is_most = limit.sense == "at most"
    looser, tighter = ("or more", "below") if is_most else ("or less", "above")
    said = []
    if margin.looser is not None:
        at = f"**{axis.read_rounded(margin.looser.bound, up=is_most)}** {looser}"
        said.append(f"at {at}, {_instead(margin.looser, named, best, axes, kind)}")
    else:
        said.append("relaxing it alone finds nothing better" if best else "relaxing it alone is not enough")
    if margin.tighter is not None:
        instead = _instead(margin.tighter, named, best, axes, kind)
        said.append(f"{tighter} **{axis.read_rounded(margin.tighter.bound, up=not is_most)}**, {instead}")
    if margin.unmeasured:
        lack = "meets the other limits but has" if margin.unmeasured == 1 else "meet the other limits but have"
        said.append(f"{formats.plural(margin.unmeasured, kind)} {lack} no measured {axis.words}")
    return f"{axis.title} {limit.sense} {axis.read(limit.bound)}: {'; '.join(said)}."


def _instead(move: Move, named: Mapping[int, Point], best: Point | None, axes: Axes, kind: str) -> str:
    """What would be recommended after a move, and how its score differs from the current recommendation's."""
    if move.best is None:
        return f"no {kind} meets all limits"
    point, score = named[move.best], axes["score"]
    if best is None:
        return f"{_name(point)} with {formats.plain(score.read(point['score']))}"
    change = formats.score_change(point["score"] - best["score"], score.units[0][1])
    words = f"{score.read(point['score'])} ({change})"
    return f"{_name(point)} with {formats.plain(words)}"


def _name(point: Point) -> str:
    seeds = point.get("n_seeds", 1)
    behind = f"mean of {seeds} seeds: runs {point['runs']}" if seeds > 1 else f"run {point['run_id']}"
    return f"**{formats.plain(point['label'])}** of {formats.plain(point['model'])} ({behind})"


def _certainty(tested: Comparison | None) -> str:
    if tested is None:
        return ""
    return (
        f", {'significant' if tested.p_value < SIGNIFICANT else 'not significant'}: {formats.p_value(tested.p_value)}"
    )


def _against_reference(best: Point, reference: Point | None, score: Axis) -> str:
    if reference is None:
        return ""
    if reference["stage_id"] == best["stage_id"]:
        return " (it is the reference itself)"
    delta = best["score"] - reference["score"]
    return f" ({formats.score_change(delta, score.units[0][1])} vs its reference)"


def _times(times: float | None, more: str, less: str) -> str:
    if times is None or 0.995 < times < 1.005:
        return ""
    return f" ({formats.ratio(times)} {more})" if times > 1 else f" ({formats.ratio(1 / times)} {less})"
