"""Every model source that a spec may name, with its settings."""

from pydantic import BaseModel

from core.models import zoo
from core.models.base import ModelSettings
from core.models.huggingface import HuggingFaceSettings


class RunSettings(ModelSettings):
    """The model that an earlier run's last stage left, as it was saved: `run:<id>`."""


MODELS: dict[str, type[BaseModel]] = {
    **zoo.SETTINGS,
    "hf": HuggingFaceSettings,
    "run": RunSettings,
}


def entry_of(source: str) -> str | None:
    """The key in MODELS that a source belongs to; None for an unknown one."""
    if source in MODELS:
        return source
    prefix = source.partition(":")[0]
    return prefix if prefix in ("hf", "run") and source != prefix else None
