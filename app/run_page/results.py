"""What a run's stages were measured to be: the summary, the table, the waterfalls and the latencies."""

import re
from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from app.charts.axes import AXES, score_axis
from app.charts.waterfall import waterfall
from app.run_page import claims as claimed
from app.run_page import paired
from app.run_page import stages as words
from core.measured import SIGNIFICANT

GREY = "color: #8C8C8C"
_BRACKETS = re.compile(r"\([^)]*\)")


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
    show_costs(known)
    show_latencies(latencies, stages)


def show_summary(stages: pd.DataFrame) -> None:
    """The last trained stage in four numbers, each against the reference."""
    trained = stages[stages["trained"] & (stages["position"] >= 0)]
    if trained.empty:
        return
    last = trained.iloc[-1].to_dict()
    unit = last["score_unit"]
    row = st.container(horizontal=True, key="cards")  # style.css gives each a least width
    cards = [row.container() for _ in range(4)]
    _card(cards[0], "Size", formats.size(last["size_bytes"]), words.size_change(last) or None)
    delta = None if pd.isna(last["score_delta"]) else f"{formats.score_change(last['score_delta'], unit)}"
    _card(
        cards[1],
        last["score_name"].capitalize(),
        formats.score(last["score"], unit),
        f"{delta} against the reference" if delta else None,
        _direction(last),
    )
    ratio = None if pd.isna(last["ratio"]) else last["ratio"]
    faster = words.NO_KERNEL if pd.isna(last["p50_ms"]) else None
    sure = _better(ratio, last["ratio_low"], last["ratio_high"])
    if ratio is not None:
        faster = words.marked(formats.time_change(ratio), last["disturbed"])
        sure = "off" if last["disturbed"] else sure
    p50 = formats.milliseconds(None if pd.isna(last["p50_ms"]) else last["p50_ms"])
    _card(cards[2], "Latency (median)", p50, faster, sure)
    peak = None if pd.isna(last["peak_memory_bytes"]) else last["peak_memory_bytes"]
    _card(cards[3], "Peak memory", formats.size(peak), "loading and running it, alone" if peak else None)


def _card(column: Any, title: str, value: str, note: str | None, colour: str = "off") -> None:
    column.metric(title, value, note, delta_color=colour, delta_arrow="off", border=True)


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
    _show(words.stage_table(stages, timed), grey)
    notes = []
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


def _show(table: pd.DataFrame, grey: list[bool]) -> None:
    """A table whose cells wrap, so that no column is cut off where labels or kernels are long."""
    written = table.map(_wrapping)
    st.table(written.style.apply(lambda row: [GREY if grey[row.name] else ""] * len(row), axis=1), hide_index=True)


def _wrapping(text: str) -> str:
    """A cell's text, which breaks before brackets and not inside them."""
    return _BRACKETS.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), formats.plain(text))


def show_costs(stages: pd.DataFrame) -> None:
    """What each stage costs to compute and to hold."""
    st.subheader("Compute and memory", anchor=False)
    _show(words.cost_table(stages), (~stages["trained"]).tolist())


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
            known = drawn.dropna(subset=[axis.column])
            if known.empty:
                st.caption("Not measured under these conditions.")
            elif axis is score:
                st.altair_chart(waterfall(known, axis, paired.p_values(known), zero=False))
                st.caption("Pale: may be chance (paired test against the stage before), or not tested.")
            else:
                st.altair_chart(waterfall(known, axis))
            if axis is AXES["p50_ms"] and 0 < len(known) < len(drawn):
                st.caption("Stages without a kernel here are not timed.")


def show_claims(stages: pd.DataFrame, timed: set[int]) -> None:
    """What was promised by bits and zeros, and what the packed file and the clock say."""
    found = claimed.claims(stages, timed)
    if not found:
        return
    st.subheader("Claimed against real", anchor=False)
    _show(pd.DataFrame([claim.row() for claim in found]), [False] * len(found))
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
