"""Memory: the peak of a fresh process that only loads an artifact and runs it, which also shows that it reloads."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from core.artifacts import artifact
from core.fresh_process import warm_up
from core.measure.peak import peak
from core.tasks.base import logits_of

PRELOADED = ["torch", "safetensors.torch", __name__]


@dataclass(frozen=True)
class Reload:
    """An artifact loaded and run on its stored probe inputs in a fresh process."""

    error: float  # largest difference from the stored outputs
    scale: float  # the largest stored output
    peak_bytes: int  # to load the models and run the probe batch; on a GPU, of its memory


def prepare() -> None:
    """Let the server of fresh processes begin its imports: ours, and the models of transformers that are loaded here.

    Otherwise each fresh process would import those again, which takes longer than to load and run a small model.
    """
    warm_up([*PRELOADED, *sorted(name for name in sys.modules if name.startswith("transformers.models."))])


def reload(
    folder: Path, device_type: str = "cpu", *, timeout: float = 600, tick: Callable[[], object] | None = None
) -> Reload:
    """Load the artifact in `folder` in a fresh process and compare its outputs; see `in_fresh_process` for errors."""
    found = peak(_run_probe, folder, device_type, device_type=device_type, timeout=timeout, tick=tick)
    error, scale = found.value
    return Reload(error, scale, found.peak_bytes)


@torch.inference_mode()
def _run_probe(folder: Path, device: str) -> tuple[float, float]:
    stored = load_file(folder / artifact.PROBE, device=device)
    batch = {key.removeprefix("input."): value for key, value in stored.items() if key.startswith("input.")}
    outputs = logits_of(artifact.load_models(folder, device)["main"], batch).float()
    return float((outputs - stored["output"]).abs().max()), float(stored["output"].abs().max())
