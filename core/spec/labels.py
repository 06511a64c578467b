"""How settings read where people see them: their names as words, which in YAML stay as they are published."""

READ_AS = {
    "steps": "updates",  # a recipe has steps; a training has updates
    "observer": "range estimator",
}
_UNITS = {"gb": "GB"}


def label(name: str) -> str:
    """A setting's name as words: "batch size", "memory GB"; READ_AS has those that read otherwise."""
    return READ_AS.get(name) or " ".join(_UNITS.get(word, word) for word in name.split("_"))
