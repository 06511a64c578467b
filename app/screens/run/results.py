"""Results of a run's stages: summary, tables, waterfall charts and latencies."""

from typing import Any

import pandas as pd
import streamlit as st

from app.charts.axes import AXES, Axis, score_axis
from app.charts.waterfall import changes, draw_waterfall
from app.components import wrapped_table
from app.screens.run import claims as claimed
from app.screens.run import significance
from app.text import formats
from app.text import stages as words
from core.measured import SIGNIFICANT

FIDELITY = (
    "KL is the Kullback-Leibler divergence KL(reference ‖ stage) of the predictions on the test examples, in nats: the "
    "mean with its 95 % interval over examples (for text: over windows), and the 99 % quantile over predictions. A "
    "prediction is an example's class, or a scored token. Flips are predictions that change between right and wrong."
)
EMBEDDINGS = (
    "Cosine is that of a test text's embedding with its reference's: the mean with its 95 % interval over examples, "
    "and the minimum. Neighbours are the share of each text's 10 nearest neighbours in the reference that are among "
    "its 10 nearest here; the other test texts are the candidates."
)
AGAINST = "The last stage. Below: the change from the reference."


def show(stages: pd.DataFrame, latencies: pd.DataFrame, conditions: list[str], seen: str | None) -> None:
    """All results of the stages; `seen` are the conditions of the latencies in the tables."""
    if stages.empty:
        st.info("No measured stages yet. Each appears here as soon as it is measured.")
        return
    if len(conditions) > 1:
        seen = st.selectbox("Latency conditions", conditions, key="conditions")
    timed = set(latencies.get("position", []))
    known = words.add_latency(stages, latencies, seen)
    show_table(known, timed)
    show_waterfalls(known)
    show_claims(known, timed)
    show_fidelity(known)
    show_costs(known)
    show_latencies(latencies, stages)


def show_summary(stages: pd.DataFrame) -> None:
    """The last trained stage in four numbers, the first three also relative to the reference."""
    trained = stages[stages["trained"] & (stages["position"] >= 0)]
    if trained.empty:
        return
    last = trained.iloc[-1].to_dict()
    unit = last["score_unit"]
    row = st.container(horizontal=True, key="cards")  # style.css sets a minimum width
    cards = [row.container() for _ in range(4)]
    _card(cards[0], "Size", formats.size(last["size_bytes"]), words.size_change(last), help=AGAINST)
    delta = "" if pd.isna(last["score_delta"]) else formats.score_change(last["score_delta"], unit)
    score = formats.score(last["score"], unit)
    _card(cards[1], last["score_name"].capitalize(), score, delta, _direction(last), help=AGAINST)
    _latency_card(cards[2], last)
    peak = None if pd.isna(last["peak_memory_bytes"]) else last["peak_memory_bytes"]
    _card(cards[3], "Peak memory", formats.size(peak), "load and run, fresh process" if peak else "")


def _latency_card(column: Any, last: dict[str, Any]) -> None:
    p50 = None if pd.isna(last["p50_ms"]) else last["p50_ms"]
    ratio = None if pd.isna(last["ratio"]) else last["ratio"]
    note, colour = words.NO_KERNEL if p50 is None else "", "off"
    if ratio is not None:
        note = words.mark_disturbed(formats.time_change(ratio), last["disturbed"])
        colour = "off" if last["disturbed"] else _better(ratio, last["ratio_low"], last["ratio_high"])
    _card(column, "Latency (median)", formats.milliseconds(p50), note, colour, help=AGAINST)


def _card(column: Any, title: str, value: str, note: str, colour: str = "off", help: str | None = None) -> None:
    column.metric(title, value, note or None, delta_color=colour, delta_arrow="off", border=True, help=help)


def _direction(stage: dict[str, Any]) -> str:
    """Green or red only if the paired test finds the change significant."""
    if pd.isna(stage["p_value"]) or stage["p_value"] >= SIGNIFICANT:
        return "off"
    return "green" if (stage["score_delta"] > 0) == stage["higher_is_better"] else "red"


def _better(ratio: float | None, low: float, high: float) -> str:
    if ratio is None or pd.isna(low) or pd.isna(high) or low <= 1 <= high:
        return "off"
    return "green" if high < 1 else "red"


def show_table(stages: pd.DataFrame, timed: set[int]) -> None:
    """All stages; untrained ones in grey, because their score is meaningless."""
    grey = (~stages["trained"]).tolist()
    wrapped_table.show(words.make_stage_table(stages, timed), grey)
    notes = []
    notes += words.list_checkpoint_notes(stages)
    if any(grey):
        notes.append("Grey stages are untrained and left out of all charts.")
    if (stages["position"] < 0).any():
        notes.append("The first row is the reference named in the spec; it is not a step of this run.")
    notes.append("Intervals are 95 %. A change is significant if the paired test gives p < 0.05.")
    if stages["ratio"].notna().any():
        notes.append(
            "Relative latency is the stage's latency over the reference's, timed in turn with the stage (see All "
            "latencies), so it can differ from the ratio of two rows."
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
    wrapped_table.show(words.make_fidelity_table(stages))
    st.caption(EMBEDDINGS if compared["cosine"].notna().any() else FIDELITY)


def show_costs(stages: pd.DataFrame) -> None:
    """Compute and memory of each stage."""
    st.subheader("Compute and memory", anchor=False)
    wrapped_table.show(words.make_cost_table(stages), (~stages["trained"]).tolist())


def show_waterfalls(stages: pd.DataFrame) -> None:
    """The effect of each step on size, score and latency, side by side."""
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
    certainties, notes = None, []
    if is_score:
        certainties = significance.judge_scores(known)
        notes.append("Pale: not significant (paired test against the previous stage) or not tested.")
    elif axis is AXES["p50_ms"]:
        certainties = significance.judge_times(known)
        notes.append("Pale: disturbed, or not significant (the 95 % intervals of the relative latencies overlap).")
    if (changes(known, axis, certainties)["strength"] == 1).all():
        notes.clear()
    if axis is AXES["p50_ms"] and len(known) < len(drawn):
        notes.append("Stages without a kernel on this worker are not timed.")
    st.altair_chart(draw_waterfall(known, axis, certainties, zero=not is_score))
    if notes:
        st.caption(" ".join(notes))


def show_claims(stages: pd.DataFrame, timed: set[int]) -> None:
    """Nominal bits and sparsity next to packed size and measured speed-up."""
    found = claimed.list_claims(stages, timed)
    if not found:
        return
    st.subheader("Nominal vs measured", anchor=False)
    wrapped_table.show(pd.DataFrame([claim.row() for claim in found]))
    st.caption(
        "Nominal size counts only nonzero weights, at their nominal bits. Packed size is that of the file, including "
        "scales, masks, indices and layers that keep their precision."
    )


def show_latencies(latencies: pd.DataFrame, stages: pd.DataFrame) -> None:
    """All latencies with their conditions."""
    if latencies.empty:
        return
    with st.expander(f"All latencies ({len(latencies)})", icon=":material/timer:"):
        st.dataframe(words.make_latency_table(latencies, stages), hide_index=True)
        where = formats.plain(f"On {latencies.iloc[0]['hardware']}, {latencies.iloc[0]['software']}")
        st.caption(f"{where}. Stage and reference were timed in turn, so that drift affects both equally.")
