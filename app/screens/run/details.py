"""Details of a run: layers, regressions, spec and environment."""

import base64
from typing import Any

import pandas as pd
import streamlit as st

from app.charts.layers import draw_layers, list_quantities, make_title
from app.queries import run_details
from app.queries.stages import load_keys
from app.text import formats
from app.text.calibration import describe_calibration, list_calibration_notes, make_calibration_table
from app.text.stages import make_layer_table, make_missed_table, name_of
from core.measured import CALIBRATION, reached_share
from core.spec.model import RunSpec

PER_ROW = 6  # images


def show_layers(stages: pd.DataFrame) -> None:
    """Per-layer results of the steps, and the modules that they did not reach."""
    _show_missed(stages)
    _show_calibration(stages)
    found = {name_of(stage): stage["details"]["layers"] for stage in stages.to_dict("records") if _layers(stage)}
    if not found:
        st.info("No step of this run has per-layer results. Pruning, quantization and decomposition record them.")
        return
    chosen = st.selectbox("Step", list(found), index=len(found) - 1, key="layers_of")
    layers = found[chosen]
    numbers = list_quantities(layers)
    if numbers and len(layers) > 1:
        shown = st.segmented_control(
            "Quantity", numbers, default=numbers[0], required=True, format_func=make_title, key=f"shown_{chosen}"
        )
        st.altair_chart(draw_layers(layers, shown or numbers[0]), width="stretch")
    st.dataframe(make_layer_table(layers), hide_index=True)


def _show_missed(stages: pd.DataFrame) -> None:
    for stage in stages.to_dict("records"):
        details = stage["details"] if isinstance(stage["details"], dict) else {}
        share, missed = reached_share(details), make_missed_table(details)
        if share is None or missed.empty:
            continue
        with st.expander(f"{formats.plain(name_of(stage))}: reached {formats.percent(share)} of the parameters"):
            st.dataframe(missed, hide_index=True)


def _show_calibration(stages: pd.DataFrame) -> None:
    """What each step calibrated with, and what its layers saw of it."""
    for stage in stages.to_dict("records"):
        coverage = stage["details"].get(CALIBRATION) if isinstance(stage["details"], dict) else None
        if coverage:
            title = f"{name_of(stage)}: calibrated with {describe_calibration(coverage)}"
            with st.expander(formats.plain(title)):
                for note in list_calibration_notes(coverage):
                    st.caption(note)
                if coverage["layers"]:
                    st.dataframe(make_calibration_table(coverage), hide_index=True)


def _layers(stage: dict[str, Any]) -> bool:
    return bool(isinstance(stage["details"], dict) and stage["details"].get("layers"))


def show_regressions(stages: pd.DataFrame) -> None:
    """The inputs that a stage gets wrong and its reference gets right, the worst first."""
    compared = {
        name_of(stage): (stage["key"], int(stage["reference_stage_id"]))
        for stage in stages.to_dict("records")
        if pd.notna(stage["reference_stage_id"]) and stage["stage_id"] != stage["reference_stage_id"]
    }
    if not compared:
        st.info("No stage has been compared with a reference yet.")
        return
    chosen = st.selectbox("Stage", list(compared), index=len(compared) - 1, key="regressions_of")
    key, reference_id = compared[chosen]
    items = run_details.load_regressions(key, load_keys((reference_id,))[reference_id])
    if items is None:
        st.info("The artifact is no longer on this host, so its regressions cannot be shown.")
    elif not items:
        st.success(
            "No regressions: every input that the reference gets right is right here too.",
            icon=":material/check_circle:",
        )
    elif "image" in items[0]:
        _images(items)
    else:
        _texts(items)


def _images(items: list[dict[str, Any]]) -> None:
    st.caption("Inputs that this stage gets wrong and its reference gets right, sorted by the increase in loss.")
    for start in range(0, len(items), PER_ROW):
        for column, item in zip(st.columns(PER_ROW), items[start : start + PER_ROW], strict=False):
            column.image(base64.b64decode(item["image"]), width="stretch")
            label, predicted = formats.plain(str(item["label"])), formats.plain(str(item["predicted"]))
            losses = f"{_loss(item, 'nats')}, was {formats.number(item['reference_nats'])}"
            column.caption(f"**{label}**, predicted **{predicted}**  \n{losses}")


def _texts(items: list[dict[str, Any]]) -> None:
    st.caption("Inputs with the largest increase in loss over the reference.")
    rows = []
    unit = f" ({items[0]['unit']})" if "unit" in items[0] else ""
    for item in items:
        answers = {"Label": item["label"], "Prediction": str(item["predicted"])} if "predicted" in item else {}
        rows.append(
            {
                "Text": item["text"],
                **answers,
                f"Loss{unit}": _loss(item, "nats"),
                f"Reference loss{unit}": _loss(item, "reference_nats"),
            }
        )
    st.dataframe(rows, hide_index=True, row_height=70, column_config={"Text": st.column_config.Column(width="large")})


def _loss(item: dict[str, Any], name: str) -> str:
    """A loss in nats; any other unit is in the column's head."""
    return formats.number(item[name]) if "unit" in item else f"{formats.number(item[name])} nats"


def show_spec(run: dict[str, Any]) -> None:
    """The spec as YAML, and the environment in which it ran."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Spec**")
        st.code(RunSpec.parse(run["spec"]).to_yaml(), language="yaml")
    with right:
        st.markdown("**Environment**")
        rows = {formats.plain(name): formats.plain(value) for name, value in describe_environment(run).items()}
        st.table(rows, border="horizontal")


def describe_environment(run: dict[str, Any]) -> dict[str, str]:
    """Seed, hardware, versions, commit and compute time, as text."""
    hardware: dict[str, Any] = run["hardware"] or {}
    versions: dict[str, Any] = hardware.get("versions") or {}
    known = dict(run["environment"])
    memory = hardware.get("memory_bytes")
    commit = known.pop("commit", None) or hardware.get("commit")
    rows = {
        "Seed": str(run["spec"].get("seed", 0)),
        "Compute time": formats.duration(run["compute_seconds"] or None),
        "Attempts": str(run["attempt"]),
        "Worker": run["worker"] or formats.NOTHING,
        "Hardware": str(known.pop("hardware", "") or hardware.get("name") or formats.NOTHING),
        "Memory": formats.size(memory),
        "Threads": str(known.pop("threads", formats.NOTHING)),
        "Commit": str(commit)[:12] if commit else formats.NOTHING,
        "Submitted": f"{formats.moment(run['created_at'])} UTC",
        "Started": _moment(run["started_at"]),
        "Ended": _moment(run["ended_at"]),
    }
    rows |= {str(name).capitalize(): str(value) for name, value in known.items() if value}
    rows |= {name: str(value) for name, value in versions.items() if name.capitalize() not in rows}
    return rows


def _moment(at: float | None) -> str:
    return formats.NOTHING if at is None else f"{formats.moment(at)} UTC"
