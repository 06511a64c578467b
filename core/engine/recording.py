"""The record of a run: its interface, and an implementation in memory for tests."""

from collections.abc import Callable
from typing import Any, Protocol

from core.context import Record
from core.integrity import DamagedArtifact
from core.measure import lock
from core.measured import Comparison, FoundRun, FoundStage, StageRecord


class RunRecord(Record, Protocol):
    """Receives what a run reports, and answers its queries about earlier runs."""

    def begin_step(self, position: int, n_positions: int, label: str, key: str) -> None:
        """A step begins; later progress is a share of it. Raises Interrupted if another run is computing `key`."""

    def find_stage(self, key: str) -> FoundStage | None:
        """The recorded stage with this key."""

    def find_run(self, run_id: int) -> FoundRun | None:
        """A finished run."""

    def stage(self, record: StageRecord) -> None:
        """Record a measured stage at its position in the run; idempotent.

        A stage that was not reused replaces other results recorded under its key.
        """

    def report_damage(self, damaged: DamagedArtifact) -> None:
        """Tell every run with this stage that its artifact was damaged and discarded."""

    def list_outdated(self, key: str) -> list[tuple[str, str]]:
        """Pairs (stage, reference) with the stage `key` in them whose comparison no longer holds."""

    def compare(self, key: str, reference_key: str, comparison: Comparison) -> None:
        """Record the comparison of a stage with a reference in every run that lacks it."""

    def note_environment(self, environment: dict[str, Any]) -> None:
        """Record the run's environment: versions and hardware."""


def damage_text(damaged: DamagedArtifact) -> str:
    """The log event for damage that the run itself repairs."""
    what = "The stage is computed again." if damaged.is_lost else "The stage is scored again."
    return f"The artifact of stage {damaged.key[:12]} is damaged: {damaged}. {what}"


def _quiet(fraction: float, text: str) -> None:
    """Ignores progress."""


class MemoryRecord:
    """Keeps everything that a run reports; `on_progress` gets the share of the whole run (0..1) and a text."""

    def __init__(self, on_progress: Callable[[float, str], None] = _quiet):
        self.on_progress = on_progress
        self.place = (0, 1, "")  # position, positions, label
        self.stages: list[StageRecord] = []
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.events: list[tuple[str, str]] = []
        self.environment: dict[str, Any] = {}

    def begin_step(self, position: int, n_positions: int, label: str, key: str) -> None:
        """Note the run's position."""
        self.place = (position, n_positions, label)

    def progress(self, fraction: float, text: str) -> None:
        """Pass on the progress as a share of the run; waits while another process on this host measures."""
        lock.pause_while_measuring()
        position, n_positions, label = self.place
        self.on_progress((max(position, 0) + fraction) / n_positions, f"{label}: {text}")

    def curve(self, name: str, step: int, value: float) -> None:
        """Add a point; curves are named `<position>/<name>`."""
        self.curves.setdefault(f"{self.place[0]}/{name}", []).append((step, value))

    def event(self, level: str, message: str) -> None:
        """Add a line to the log."""
        self.events.append((level, message))

    def find_stage(self, key: str) -> FoundStage | None:
        """A stage that this record holds already."""
        for stage in self.stages:
            if stage.measured.key == key:
                near = {stage.reference_key: stage.fidelity} if stage.reference_key and stage.fidelity else {}
                latencies = [(stage.reference_key, row) for row in stage.latencies]
                return FoundStage(0, stage.measured, stage.manifest_sha256, latencies, near)
        return None

    def find_run(self, run_id: int) -> FoundRun | None:
        """There are no other runs here."""
        return None

    def stage(self, record: StageRecord) -> None:
        """Keep a stage."""
        self.stages.append(record)

    def report_damage(self, damaged: DamagedArtifact) -> None:
        """Add it to the log."""
        self.event("warning", damage_text(damaged))

    def list_outdated(self, key: str) -> list[tuple[str, str]]:
        """There are no other runs here."""
        return []

    def compare(self, key: str, reference_key: str, comparison: Comparison) -> None:
        """There are no other runs here."""

    def note_environment(self, environment: dict[str, Any]) -> None:
        """Keep what the run executes on."""
        self.environment = environment


class PartOfProgress:
    """A record whose progress is the first part of a step's."""

    def __init__(self, record: Record, share: float):
        self.record, self.share = record, share

    def progress(self, fraction: float, text: str) -> None:
        self.record.progress(fraction * self.share, text)

    def curve(self, name: str, step: int, value: float) -> None:
        self.record.curve(name, step, value)

    def event(self, level: str, message: str) -> None:
        self.record.event(level, message)
