"""What a run's stages were measured to be: the summary, the table, the waterfalls and the latencies."""

from typing import Any

import pandas as pd
import streamlit as st

from app.charts.axes import AXES, Axis, score_axis
from app.charts.waterfall import changes, waterfall
from app.components import wrapped_table
from app.screens.run import claims as claimed
from app.screens.run import significance
from app.text import formats
from app.text import stages as words
from core.measured import SIGNIFICANT

FIDELITY = (
    "KL is the divergence KL(reference ‖ stage) of the predictions on the test examples, in nats: its mean with the "
    "95 % interval over examples (of text: whole windows), and the value that 99 % of the predictions stay below. A "
    "prediction is an example's class, or a token that the score counts. Flips are predictions that change between "
    "right and wrong."
)
AGAINST = "Of the last stage; below, how that stands against the reference."


def show(stages: pd.DataFrame, latencies: pd.DataFrame, conditions: list[str], seen: str | None) -> None:
    """All there is to say of the stages; `seen` are the conditions whose latencies stand in the tables."""
    if stages.empty:
        st.info("No stage is measured yet. Each appears here as soon as it is.")
        return
    if len(conditions) > 1:
        seen = st.selectbox("Latency measured as", conditions, key="conditions")
    timed = set(latencies.get("position", []))
    known = words.with_latency(stages, latencies, seen)
    show_table(known, timed)
    show_waterfalls(known)
    show_claims(known, timed)
    show_fidelity(known)
    show_costs(known)
    show_latencies(latencies, stages)


def show_summary(stages: pd.DataFrame) -> None:
    """The last trained stage in four numbers, the first three also against the reference."""
    trained = stages[stages["trained"] & (stages["position"] >= 0)]
    if trained.empty:
        return
    last = trained.iloc[-1].to_dict()
    unit = last["score_unit"]
    row = st.container(horizontal=True, key="cards")  # style.css gives each a least width
    cards = [row.container() for _ in range(4)]
    _card(cards[0], "Size", formats.size(last["size_bytes"]), words.size_change(last), help=AGAINST)
    delta = "" if pd.isna(last["score_delta"]) else formats.score_change(last["score_delta"], unit)
    score = formats.score(last["score"], unit)
    _card(cards[1], last["score_name"].capitalize(), score, delta, _direction(last), help=AGAINST)
    _latency_card(cards[2], last)
    peak = None if pd.isna(last["peak_memory_bytes"]) else last["peak_memory_bytes"]
    _card(cards[3], "Peak memory", formats.size(peak), "loading and running it, alone" if peak else "")


def _latency_card(column: Any, last: dict[str, Any]) -> None:
    p50 = None if pd.isna(last["p50_ms"]) else last["p50_ms"]
    ratio = None if pd.isna(last["ratio"]) else last["ratio"]
    note, colour = words.NO_KERNEL if p50 is None else "", "off"
    if ratio is not None:
        note = words.marked(formats.time_change(ratio), last["disturbed"])
        colour = "off" if last["disturbed"] else _better(ratio, last["ratio_low"], last["ratio_high"])
    _card(column, "Latency (median)", formats.milliseconds(p50), note, colour, help=AGAINST)


def _card(column: Any, title: str, value: str, note: str, colour: str = "off", help: str | None = None) -> None:
    column.metric(title, value, note or None, delta_color=colour, delta_arrow="off", border=True, help=help)


def _direction(stage: dict[str, Any]) -> str:
    """Green or red only where the paired test says that the change is more than chance."""
    if pd.isna(stage["p_value"]) or stage["p_value"] >= SIGNIFICANT:
        return "off"
    return "green" if (stage["score_delta"] > 0) == stage["higher_is_better"] else "red"


def _better(ratio: float | None, low: float, high: float) -> str:
    if ratio is None or pd.isna(low) or pd.isna(high) or low <= 1 <= high:
        return "off"
    return "green" if high < 1 else "red"


def show_table(stages: pd.DataFrame, timed: set[int]) -> None:
    """All stages; those without training grey, because their score says nothing."""
    grey = (~stages["trained"]).tolist()
    wrapped_table.show(words.stage_table(stages, timed), grey)
    notes = []
    notes += words.checkpoint_notes(stages)
    if any(grey):
        notes.append("Grey: not trained yet, so left out of every chart.")
    if (stages["position"] < 0).any():
        notes.append("The first line is the reference that the spec names; it is no step of this run.")
    notes.append("Intervals are 95 %. A change is significant where the paired test gives p below 0.05.")
    if stages["ratio"].notna().any():
        notes.append(
            "Time × reference is against the reference as it was timed in turn with the stage (All latencies), "
            "not against its own line."
        )
    if stages["disturbed"].eq(True).any():
        notes.append(words.DISTURBED)
    st.caption(" ".join(notes))


def show_fidelity(stages: pd.DataFrame) -> None:
    """How close each stage's predictions are to the reference's."""
    compared = stages[stages["trained"] & (stages["stage_id"] != stages["reference_stage_id"])]
    if compared.empty:
        return
    st.subheader("Fidelity to the reference", anchor=False)
    wrapped_table.show(words.fidelity_table(stages))
    st.caption(FIDELITY)


def show_costs(stages: pd.DataFrame) -> None:
    """What each stage costs to compute and to hold."""
    st.subheader("Compute and memory", anchor=False)
    wrapped_table.show(words.cost_table(stages), (~stages["trained"]).tolist())


def show_waterfalls(stages: pd.DataFrame) -> None:
    """What each step did to size, score and latency, side by side."""
    drawn = stages[stages["trained"] & (stages["position"] >= 0)]
    if drawn.empty:
        return
    first = drawn.iloc[0]
    score = score_axis(first["score_name"], first["score_unit"], bool(first["higher_is_better"]))
    row = st.container(horizontal=True, key="waterfalls")
    for axis in (AXES["size_bytes"], score, AXES["p50_ms"]):
        with row.container():
            st.markdown(f"**{axis.title}**")
            _show_waterfall(drawn, axis, is_score=axis is score)


def _show_waterfall(drawn: pd.DataFrame, axis: Axis, *, is_score: bool) -> None:
    known = drawn.dropna(subset=[axis.column])
    if known.empty:
        st.caption("Not measured under these conditions.")
        return
    told, notes = None, []
    if is_score:
        told = significance.of_scores(known)
        notes.append("Pale: may be chance (paired test against the stage before), or not tested.")
    elif axis is AXES["p50_ms"]:
        told = significance.of_times(known)
        notes.append("Pale: disturbed, or may be chance (the 95 % intervals of Time × reference meet).")
    if (changes(known, axis, told)["strength"] == 1).all():
        notes.clear()
    if axis is AXES["p50_ms"] and len(known) < len(drawn):
        notes.append("Stages without a kernel here are not timed.")
    st.altair_chart(waterfall(known, axis, told, zero=not is_score))
    if notes:
        st.caption(" ".join(notes))


def show_claims(stages: pd.DataFrame, timed: set[int]) -> None:
    """What was promised by bits and zeros, and what the packed file and the clock say."""
    found = claimed.claims(stages, timed)
    if not found:
        return
    st.subheader("Claimed against real", anchor=False)
    wrapped_table.show(pd.DataFrame([claim.row() for claim in found]))
    st.caption(
        "Claimed size counts nonzero weights at their nominal bits. Packed size is what the file holds: scales, masks, "
        "indices and layers that keep their precision included."
    )


def show_latencies(latencies: pd.DataFrame, stages: pd.DataFrame) -> None:
    """Every latency with its conditions."""
    if latencies.empty:
        return
    with st.expander(f"All latencies ({len(latencies)})", icon=":material/timer:"):
        st.dataframe(words.latency_table(latencies, stages), hide_index=True)
        where = formats.plain(f"On {latencies.iloc[0]['hardware']}, {latencies.iloc[0]['software']}")
        st.caption(f"{where}. Stage and reference were timed in turn, so that a machine that drifts slows both alike.")
