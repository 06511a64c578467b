"""Access to artifacts for the front end, and paired tests on their per-example results."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from core.artifacts.store import ArtifactStore, open_configured_store
from core.integrity import EXAMPLES
from core.measured import Comparison
from core.paired_tests import paired


def store() -> ArtifactStore:
    """The artifact store; remote artifacts are copied into the home folder when first opened."""
    return open_configured_store()


def open_results() -> ArtifactStore:
    """The results of stages imported without weights, kept apart because nothing can be computed from them."""
    return open_configured_store("results")


def open_shown(key: str) -> Path:
    """The folder with what pages show of a stage: its artifact or imported results; raises FileNotFoundError."""
    try:
        return store().open(key)
    except FileNotFoundError:
        return open_results().open(key)


def pair_scores(score: str, key: str, base_key: str) -> Comparison | str:
    """The paired comparison of a stage's score with the base's on the same examples, or why there is none."""
    try:
        examples, base = (load_file(open_shown(k) / EXAMPLES) for k in (key, base_key))
    except FileNotFoundError:
        return "per-example results are not on this host"
    except SafetensorError:
        return "per-example results are damaged; requeue the run"
    try:
        return paired(score, examples, base)
    except ValueError as error:
        return str(error)
