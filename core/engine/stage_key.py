"""The key of a stage: a hash of all that determines it, so that equal work is done once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.software import software


@dataclass(frozen=True)
class Asked:
    """What is asked for up to a stage: hashes of the contents of model and data, the seed, the steps so far."""

    source: str
    task: str
    seed: int
    steps: Sequence[Mapping[str, Any]]


def stage_key(asked: Asked, *, device_type: str, test_examples: int | None) -> str:
    """SHA-256 over all that determines a stage: what is asked for, the type of device and the software."""
    computed = {"device": device_type, "test_examples": test_examples, "software": software()}
    return _hash({**asdict(asked), **computed})


def draw_key(asked: Asked) -> str:
    """SHA-256 over what is asked for alone: what randomness is drawn from.

    So a recipe is seeded alike on every device and in every release, however it is measured.
    """
    return _hash(asdict(asked))


def _hash(determining: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()
