"""Where artifacts lie, for the front end."""

from core.artifact_store import ArtifactStore
from core.settings import settings


def store() -> ArtifactStore:
    """The artifacts' store; those on another host are copied below the home when they are first opened."""
    return ArtifactStore(settings().artifacts_url, settings().home.absolute() / "cache")
