"""All model sources with their settings."""

from core.models import zoo
from core.models.base import ModelSettings
from core.models.huggingface import HuggingFaceSettings


class RunSettings(ModelSettings):
    """The saved model of an earlier run's last stage: `run:<id>`."""


MODELS: dict[str, type[ModelSettings]] = {
    **zoo.ZOO,
    "hf": HuggingFaceSettings,
    "run": RunSettings,
}


def sources() -> dict[str, type[ModelSettings]]:
    """MODELS, and those of other packages."""
    return {**zoo.architectures(), **MODELS}


def entry_of(source: str) -> str | None:
    """The key in `sources()` that a source belongs to; None for an unknown one."""
    prefix = source.partition(":")[0]
    if source in MODELS:
        return source
    if prefix in ("hf", "run") and source != prefix:
        return prefix
    return source if source in sources() else None
