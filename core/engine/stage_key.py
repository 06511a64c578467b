"""The key of a stage: a hash of everything that determines it, so that equal stages are computed once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.software import software


@dataclass(frozen=True)
class Asked:
    """The spec up to a stage: hashes of the contents of model and data, the seed, the steps so far.

    `reference` is what the run's reference is determined by, where the score itself is taken against it and it is not
    the source that the stage's steps start from.
    """

    source: str
    task: str
    seed: int
    steps: Sequence[Mapping[str, Any]]
    reference: str | None = None


def stage_key(asked: Asked, *, device_type: str, test_examples: int | None) -> str:
    """SHA-256 over everything that determines a stage: the spec up to it, the device type and the software."""
    computed = {"device": device_type, "test_examples": test_examples, "software": software()}
    return _hash({**_determining(asked), **computed})


def draw_key(asked: Asked) -> str:
    """SHA-256 over the spec up to a stage alone, which seeds its random numbers.

    So a recipe has the same random numbers on every device, in every release and with any measurement settings.
    """
    return _hash(_determining(asked))


def _determining(asked: Asked) -> dict[str, Any]:
    """Without a reference, as in releases that knew of none."""
    return {name: value for name, value in asdict(asked).items() if name != "reference" or value is not None}


def _hash(determining: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()
