"""Downloading a run's artifacts, and the lines of Python that load them."""

from typing import Any

import pandas as pd
import streamlit as st

from app import downloads, formats
from app.run_page.stages import name_of

CODE = """from pathlib import Path

from core.artifact import load_models  # of Slimboard's checkout

model = load_models(Path("{folder}"))["main"]  # packed weights, ready to run
"""


def show(run: dict[str, Any], stages: pd.DataFrame) -> None:
    """One download a stage, the last one first, with the code below."""
    if stages.empty:
        st.info("No stage is finished yet, so there is nothing to download.")
        return
    rows = stages[stages["position"] >= 0].sort_values("position", ascending=False).to_dict("records")
    for stage in rows:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            packed, whole = formats.size(stage["size_bytes"]), formats.size(stage["artifact_bytes"])
            name = formats.plain(name_of(stage))
            st.markdown(
                f"**{name}**  \n:small[packed weights {packed}, all files {whole} · {_reload(stage)}]",
                width="stretch",
            )
            st.link_button("Download", downloads.link(stage["key"], _folder(run, stage)), icon=":material/download:")
    st.markdown("Unzip it, then:")
    st.code(CODE.format(folder=_folder(run, rows[0])), language="python")
    st.markdown("Or from a shell on the server, without the zip:")
    st.code(f"slimboard export {run['id']} {_folder(run, rows[0])}", language="bash")
    st.caption(
        "A folder holds `model.safetensors` (packed), `manifest.json` (how to build the model around it), probe inputs "
        "with their outputs, and per-example results. Nothing in it is pickled."
    )


def _folder(run: dict[str, Any], stage: dict[str, Any]) -> str:
    return f"run-{run['id']}-stage-{stage['position']}"


def _reload(stage: dict[str, Any]) -> str:
    error = stage["reload_max_error"]
    if pd.isna(error):
        return "not reloaded: untrained"
    return f"reloaded in a fresh process, outputs differ by at most {formats.number(float(error))}"
