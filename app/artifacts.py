"""Where artifacts lie, for the front end."""

from pathlib import Path

from core.artifact_store import ArtifactStore
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
