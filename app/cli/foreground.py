"""`slimboard run`: execute one spec in this process, without a queue.

If there is a store, the stages recorded in it are reused; nothing is written to it. Importing this module loads torch.
"""

import contextlib
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from app.cli import shell
from app.cli.terminal import ProgressLine, describe_stage
from core.artifacts.store import ArtifactStore, open_configured_store
from core.engine.recording import damage_text
from core.errors import Problem, SpecError
from core.integrity import DamagedArtifact
from core.measure import lock
from core.measured import Comparison, FoundRun, FoundStage, StageRecord
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.store import engine, stages
from core.tasks.paths import permit_all


class OutOfTime(Exception):
    """The run exceeded its spec's `limits.minutes`."""


class TerminalRecord:
    """Reports of a foreground run: one line of progress on stderr. Records nothing.

    `minutes` is the time limit, `has_store` whether stages and runs can be read from the store.
    """

    def __init__(self, minutes: float | None, *, has_store: bool) -> None:
        self.shown = ProgressLine()
        self.has_store = has_store
        self.place = ""
        self.minutes = minutes
        self.started = time.monotonic()

    def begin_step(self, position: int, n_positions: int, label: str, key: str) -> None:
        """Show which step starts."""
        self.place = f"[{max(position, 0) + 1}/{n_positions}] {label}"
        self.shown.step(self.place)

    def progress(self, fraction: float, text: str) -> None:
        """Show the step's progress, and wait while a worker is timing; raises OutOfTime past the limit."""
        lock.pause_while_measuring()
        if self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes:
            raise OutOfTime(f"The run exceeded its limit of {self.minutes:g} minutes.")
        self.shown.update(f"{self.place}: {100 * fraction:3.0f} %  {text}")

    def curve(self, name: str, step: int, value: float) -> None:
        """Ignore curves, which belong in the store."""

    def event(self, level: str, message: str) -> None:
        """Show a line of the log."""
        self.shown.line(f"{level}: {message}")

    def find_stage(self, key: str) -> FoundStage | None:
        """The recorded stage with this key."""
        if not self.has_store:
            return None
        with engine.read_session() as s:
            return stages.find_stage(s, key)

    def find_run(self, run_id: int) -> FoundRun | None:
        """A finished run; raises SpecError if there is no store."""
        if not self.has_store:
            remedy = "Set SLIMBOARD_HOME or SLIMBOARD_DATABASE_URL."
            raise SpecError.of("model.source", f"run:{run_id}", "needs a store, but there is none", remedy)
        with engine.read_session() as s:
            return stages.find_run(s, run_id)

    def stage(self, record: StageRecord) -> None:
        """Ignore stages, which are returned at the end."""

    def report_damage(self, damaged: DamagedArtifact) -> None:
        """Show a warning; the next worker that uses the artifact measures it again and notifies the affected runs."""
        self.event("warning", damage_text(damaged))

    def list_outdated(self, key: str) -> list[tuple[str, str]]:
        """None: comparisons belong in the store."""
        return []

    def compare(self, key: str, reference_key: str, comparison: Comparison) -> None:
        """Ignore comparisons, which belong in the store."""

    def note_environment(self, environment: dict[str, Any]) -> None:
        """Ignore the environment, which is this process's."""


def execute(spec: RunSpec, device: str | None) -> dict[str, Any]:
    """Execute a spec and return what `--json` prints. Raises SpecError.

    The spec may use any file that the user can read: the data folders restrict servers only.
    """
    with contextlib.redirect_stdout(sys.stderr), permit_all():  # stdout is for the result only
        import torch

        from core import publish
        from core.engine import pipeline
        from core.provides import provides

        catalogue = Catalogue(**publish.describe_catalogue())
        validate(spec, catalogue)
        chosen = device or (spec.device if spec.device != "any" else "gpu" if torch.cuda.is_available() else "cpu")
        if chosen == "gpu" and not torch.cuda.is_available():
            raise SpecError.of("device", "gpu", "is not available: PyTorch finds no CUDA device", "Choose cpu.")
        _require_all(spec, catalogue, provides(chosen))
        artifacts = open_configured_store()
        reason = _why_no_store()
        record = TerminalRecord(spec.limits.minutes, has_store=reason is None)
        if reason:
            record.event("warning", f"stages in the store are not reused: {reason}")
        if spec.limits.memory_gb is not None:
            record.event("warning", "limits.memory_gb is enforced by workers only, not by `slimboard run`.")
        try:
            measured = pipeline.execute(spec, record, artifacts=artifacts, device=chosen)
        finally:
            record.shown.clear()
    return _result(measured, artifacts)


def _require_all(spec: RunSpec, catalogue: Catalogue, provided: Collection[str]) -> None:
    """Raise SpecError if a technique or runtime requires what this machine does not provide."""
    missing = {need: user for need, user in catalogue.requires(spec).items() if need not in provided}
    if missing:
        remedy = "Install it here, or queue the run for a worker that has it."
        raise SpecError(
            [
                Problem("spec", user, f"requires {need}, which is not available here", remedy)
                for need, user in missing.items()
            ]
        )


def _why_no_store() -> str | None:
    """Why the store cannot be read; empty if there is none, None if it can be read."""
    if not shell.store_exists():
        return ""
    try:
        found, expected = engine.revision()
    except OperationalError as error:
        return f"the store is not responding ({error.orig})"
    return None if found == expected else f"the store is at revision {found}, not {expected}"


def _result(measured: list[StageRecord], artifacts: ArtifactStore) -> dict[str, Any]:
    last = measured[-1]
    folder: Path = artifacts.open(last.measured.key)
    return {
        "stages": [
            describe_stage(stage.position, stage.measured, stage.fidelity, stage.latencies) for stage in measured
        ],
        "artifact": str(folder),
        "reload_max_error": last.measured.reload_max_error,
    }
