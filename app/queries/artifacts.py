"""Where artifacts lie, for the front end, and what is said of two by what they hold."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from core.artifacts.store import ArtifactStore
from core.integrity import EXAMPLES
from core.measured import Comparison
from core.paired_tests import paired
from core.settings import settings


def store() -> ArtifactStore:
    """The artifacts' store; those on another host are copied below the home when they are first opened."""
    return ArtifactStore(settings().artifacts_url, settings().home.absolute() / "cache")


def results() -> ArtifactStore:
    """What was imported of stages without their weights: apart, as nothing can be computed from it."""
    return ArtifactStore(f"{settings().artifacts_url}/results", settings().home.absolute() / "cache" / "results")


def open_shown(key: str) -> Path:
    """The folder with what pages show of a stage: its artifact, else what was imported; raises FileNotFoundError."""
    try:
        return store().open(key)
    except FileNotFoundError:
        return results().open(key)


def paired_scores(score: str, key: str, base_key: str) -> Comparison | str:
    """How a stage's score differs from the base's on the same examples, or in words why that cannot be said."""
    try:
        examples, base = (load_file(open_shown(k) / EXAMPLES) for k in (key, base_key))
    except FileNotFoundError:
        return "its results by example are not on this host"
    except SafetensorError:
        return "its results by example are damaged; requeue its run"
    try:
        return paired(score, examples, base)
    except ValueError as error:
        return str(error)
