"""Memory: the peak of a fresh process that only loads and runs an artifact, which also tests that it reloads."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from core.artifacts import artifact
from core.fresh_process import warm_up
from core.integrity import PROBE
from core.measure.peak import measure_peak
from core.nn.precision import float_dtype
from core.tasks.base import logits_of

TOLERANCE = 1e-3  # of the largest output, or 4 roundings of 16 bits: additions may have another order elsewhere
PRELOADED = ["torch", "safetensors.torch", __name__]


@dataclass(frozen=True)
class Reload:
    """An artifact loaded and run on its stored probe inputs in a fresh process."""

    error: float  # largest difference from the stored outputs
    scale: float  # the largest stored output
    epsilon: float  # machine epsilon of the model's dtype
    peak_bytes: int  # to load the models and run the probe batch; on a GPU, of its memory

    @property
    def tolerance(self) -> float:
        """The largest error that still counts as equal."""
        return max(TOLERANCE, 4 * self.epsilon) * self.scale


def prepare() -> None:
    """Let the server of fresh processes start its imports: ours, and the models of transformers that are loaded here.

    Otherwise each fresh process would import them again, which takes longer than loading and running a small model.
    """
    warm_up([*PRELOADED, *sorted(name for name in sys.modules if name.startswith("transformers.models."))])


def reload(
    folder: Path, device_type: str = "cpu", *, timeout: float = 600, tick: Callable[[], object] | None = None
) -> Reload:
    """Load the artifact in `folder` in a fresh process and compare its outputs; see `in_fresh_process` for errors."""
    threads = torch.get_num_threads()  # sums are added in the order that they were added in here
    found = measure_peak(_run_probe, folder, device_type, threads, device_type=device_type, timeout=timeout, tick=tick)
    error, scale, epsilon = found.value
    return Reload(error, scale, epsilon, found.peak_bytes)


@torch.inference_mode()
def _run_probe(folder: Path, device: str, threads: int) -> tuple[float, float, float]:
    """Error, scale, and the machine epsilon of the model's dtype, computed by this many threads."""
    torch.set_num_threads(threads)
    stored = load_file(folder / PROBE, device=device)
    batch = {key.removeprefix("input."): value for key, value in stored.items() if key.startswith("input.")}
    model = artifact.load_models(folder, device)["main"]
    error = float((logits_of(model, batch) - stored["output"]).abs().max())
    return error, float(stored["output"].abs().max()), torch.finfo(float_dtype(model)).eps
