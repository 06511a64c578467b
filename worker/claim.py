"""What a worker holds while it executes a run, and how the run's process says that it ended. Loads no torch."""

from dataclasses import dataclass
from pathlib import Path

from core.errors import Interrupted
from core.settings import settings
from core.store.queue import Ended


@dataclass(frozen=True)
class Claim:
    """A run, for one attempt; whoever holds an older attempt may write nothing."""

    run_id: int
    attempt: int
    device: str  # cpu | gpu
    minutes: float | None = None  # longest time
    memory_gb: float | None = None  # most memory of the process


@dataclass(frozen=True)
class GivenBack:
    """The run goes back to the queue: its worker stops, or another run computes the stage `next_key`."""

    next_key: str | None = None


@dataclass(frozen=True)
class Abandoned:
    """The run was taken from this worker meanwhile; nothing more may be written."""


Outcome = Ended | GivenBack | Abandoned


class Deferred(Interrupted):
    """Another run is computing the stage that this one needs next."""

    def __init__(self, key: str):
        super().__init__(f"another run is computing stage {key[:12]}")
        self.key = key


class TakenAway(Exception):
    """The run was given to another worker; what this one computes no longer counts."""


def checkpoints() -> Path:
    """Folder of the checkpoints of long trainings: beside the artifacts where those are a folder."""
    url = settings().artifacts_url
    return (settings().home.absolute() if "://" in url else Path(url)) / "checkpoints"
