"""Labels of settings for display; in YAML they keep their names."""

from pydantic import BaseModel

READ_AS = {
    "steps": "updates",  # a recipe has steps; a training has updates
    "observer": "range estimator",
    "activation_observer": "range estimator of activations",
}
_UNITS = {"gb": "GB"}


def label(name: str) -> str:
    """A setting's name as words: "batch size", "memory GB"; READ_AS has the exceptions."""
    return READ_AS.get(name) or " ".join(_UNITS.get(word, word) for word in name.split("_"))


def changed_settings(settings: BaseModel) -> str:
    """The settings that differ from their defaults, in one line, without lists and objects: "bits 4 group_size 64"."""
    changed = settings.model_dump(exclude_defaults=True)
    return " ".join(f"{key} {value}" for key, value in changed.items() if isinstance(value, (int, float, str)))
