"""Downloads of a run's artifacts, and Python code that loads them."""

from typing import Any

import pandas as pd
import streamlit as st

from app.queries import run_details
from app.text import formats
from app.text.stages import name_of
from app.web import downloads

CODE = """from pathlib import Path

import torch
from safetensors.torch import load_file

from core.artifacts.artifact import load_models  # needs Slimboard's checkout on PYTHONPATH
from core.tasks.base import logits_of

folder = Path("{folder}")
model = load_models(folder)["main"]  # packed weights, ready to run

probe = load_file(folder / "probe.safetensors")  # a few real inputs and the model's outputs for them
inputs = {{name.removeprefix("input."): value for name, value in probe.items() if name != "output"}}
with torch.inference_mode():
    output = logits_of(model, inputs)
print((output - probe["output"]).abs().max())  # 0, or close to it on another machine
"""


def show(run: dict[str, Any], stages: pd.DataFrame) -> None:
    """The run's bundle, then one download per stage, the last one first, with the code below."""
    if not run_details.is_unfinished(run):
        _show_bundle(run)
    if stages.empty:
        st.info("Nothing to download yet. Each stage appears here when it is finished.")
        return
    rows = stages[stages["position"] >= 0].sort_values("position", ascending=False).to_dict("records")
    for stage in rows:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            packed, name = formats.size(stage["size_bytes"]), formats.plain(name_of(stage))
            here = pd.notna(stage["artifact_bytes"])
            files = f"all files {formats.size(stage['artifact_bytes'])}" if here else "imported without weights"
            st.markdown(f"**{name}**  \n:small[packed weights {packed}, {files} · {_reload(stage)}]", width="stretch")
            if not here:
                continue
            st.link_button(
                "Download", downloads.make_link(stage["key"], _folder(run, stage)), icon=":material/download:"
            )
    there = [stage for stage in rows if pd.notna(stage["artifact_bytes"])]
    if there:
        _show_code(run, there[0])


def _show_code(run: dict[str, Any], stage: dict[str, Any]) -> None:
    st.markdown("Unzip the file, then:")
    st.code(CODE.format(folder=_folder(run, stage)), language="python")
    st.markdown("Or in a shell on the server, without a zip file:")
    st.code(f"slimboard export {run['id']} {_folder(run, stage)}", language="bash")
    st.caption(
        "The folder contains `model.safetensors` (packed weights), `manifest.json` (how to rebuild the model), probe "
        "inputs with their outputs, and per-example results. It contains no pickle files."
    )


def _show_bundle(run: dict[str, Any]) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        words = "everything on this page except weights, to import or rerun in another Slimboard installation"
        st.markdown(f"**The whole run**  \n:small[{words}]", width="stretch")
        st.link_button("Bundle", downloads.bundle_link(run["id"]), icon=":material/deployed_code:")


def _folder(run: dict[str, Any], stage: dict[str, Any]) -> str:
    return f"run-{run['id']}-stage-{stage['position']}"


def _reload(stage: dict[str, Any]) -> str:
    error = stage["reload_max_error"]
    if pd.isna(error):
        return "not reload-tested (untrained)"
    found = f"outputs differ by at most {formats.number(float(error))}" if error else "identical outputs"
    return f"reloaded in a fresh process: {found}"
