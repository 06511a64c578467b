"""The progress of a run: its curves, grouped by step, and its log."""

import datetime as dt
from typing import Any, Literal

import pandas as pd
import streamlit as st

from app.charts.curves import draw_curve
from app.queries import run_details
from app.text import formats
from app.text.stages import make_curve_title, name_of

LEVELS = {"error": "red", "warning": "orange", "info": "", "output": "gray"}
LINES = 400
FEW_LINES = 16  # that fit without scrolling
SHOWN_AT_FIRST = 6  # curves of a step


def show_curves(run_id: int, stages: pd.DataFrame) -> None:
    """The curves step by step, with a picker for which ones to show."""
    found = run_details.load_curves(run_id)
    if not found:
        st.info("No curves yet. Steps that train, distill or search record them while they run.")
        return
    labels = {stage["position"]: name_of(stage) for stage in stages.to_dict("records")}
    by_step: dict[int, list[str]] = {}
    for name, _ in found:
        by_step.setdefault(int(name.partition("/")[0]), []).append(name)
    names = sorted({name.partition("/")[2] for name, _ in found}, key=lambda n: (n != "loss", n))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect("Curves", names, default=names[:SHOWN_AT_FIRST], format_func=_in_words, key="curves")
        smooth = st.toggle("Smooth", value=True, key="smooth")
        log = st.toggle("Logarithmic", key="log_curves")
    for position, curves in by_step.items():
        shown = [name for name in names if name in chosen and f"{position}/{name}" in curves]
        if not shown:
            continue
        st.markdown(f"**{formats.plain(labels.get(position, f'{position} · in progress'))}**")
        columns = st.columns(min(3, max(2, len(shown))))
        for index, name in enumerate(shown):
            points = run_details.load_curve(run_id, f"{position}/{name}")
            columns[index % len(columns)].altair_chart(
                draw_curve(points, make_curve_title(name), smooth=smooth, log=log)
            )


def show_log(run_id: int) -> None:
    """The last lines of the log, for the selected levels."""
    chosen = st.pills("Levels", list(LEVELS), selection_mode="multi", default=list(LEVELS), key="levels")
    lines = run_details.load_log(run_id, tuple(chosen), LINES)
    if not lines:
        every = set(chosen) == set(LEVELS)
        st.info("The log is empty." if every else "No lines at these levels." if chosen else "Select a level.")
        return
    height: Literal["content"] | int = "content" if len(lines) <= FEW_LINES else 420
    st.code("\n".join(_line(line) for line in lines), language="log", height=height, wrap_lines=True)
    if len(lines) == LINES:
        st.caption(f"The last {formats.plural(LINES, 'line')}.")


def _line(line: dict[str, Any]) -> str:
    at = dt.datetime.fromtimestamp(line["at"], dt.UTC).strftime("%H:%M:%S")
    attempt = f"attempt {line['attempt']} " if line["attempt"] > 1 else ""
    return f"{at} {attempt}{line['level'].upper():7} {line['message'].rstrip()}"


def _in_words(name: str) -> str:
    return name.replace("_", " ")
