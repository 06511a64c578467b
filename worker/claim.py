"""A worker's claim on a run, and how the run's process reports its end. Loads no torch."""

from dataclasses import dataclass
from pathlib import Path

from core.errors import Interrupted
from core.settings import settings
from core.store.queue import Ended


@dataclass(frozen=True)
class Claim:
    """A run, for one attempt; holders of older attempts may not write anything."""

    run_id: int
    attempt: int
    device: str  # cpu | gpu
    minutes: float | None = None  # longest time
    memory_gb: float | None = None  # most memory of the process


@dataclass(frozen=True)
class GivenBack:
    """The run returns to the queue: its worker stops, or another run is computing the stage `next_key`."""

    next_key: str | None = None


@dataclass(frozen=True)
class Abandoned:
    """The run was taken from this worker; it may not write anything more."""


Outcome = Ended | GivenBack | Abandoned


class Deferred(Interrupted):
    """Another run is computing the stage that this one needs next."""

    def __init__(self, key: str):
        super().__init__(f"another run is computing stage {key[:12]}")
        self.key = key


class TakenAway(Exception):
    """The run was given to another worker; this one's results no longer count."""


def find_checkpoints() -> Path:
    """Folder of the checkpoints of long trainings: next to the artifacts if those are in a folder."""
    url = settings().artifacts_url
    return (settings().home.absolute() if "://" in url else Path(url)) / "checkpoints"
