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
from app.cli.terminal import ProgressLine, stage_object
from core.artifacts.store import ArtifactStore
from core.engine.recording import damage_text
from core.errors import Problem, SpecError
from core.integrity import DamagedArtifact
from core.measure import lock
from core.measured import Comparison, FoundRun, FoundStage, StageRecord
from core.settings import settings
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.store import engine, stages
from core.tasks.paths import permit_all


class OutOfTime(Exception):
    """The run took longer than its spec's `limits.minutes`."""


class TerminalRecord:
    """What a run in the foreground reports: one line of progress on stderr. It keeps nothing.

    `minutes` is the longest time to run, `has_store` whether the store may be asked for stages and runs.
    """

    def __init__(self, minutes: float | None, *, has_store: bool) -> None:
        self.shown = ProgressLine()
        self.has_store = has_store
        self.place = ""
        self.minutes = minutes
        self.started = time.monotonic()

    def begin_step(self, position: int, n_positions: int, label: str, key: str) -> None:
        """Show which step begins."""
        self.place = f"[{max(position, 0) + 1}/{n_positions}] {label}"
        self.shown.step(self.place)

    def progress(self, fraction: float, text: str) -> None:
        """Show how far the step is, and wait while a worker times something; OutOfTime past the spec's limit."""
        lock.pause_while_measuring()
        if self.minutes is not None and time.monotonic() - self.started > 60 * self.minutes:
            raise OutOfTime(f"The run took longer than its limit of {self.minutes:g} minutes.")
        self.shown.update(f"{self.place}: {100 * fraction:3.0f} %  {text}")

    def curve(self, name: str, step: int, value: float) -> None:
        """Curves are for the store."""

    def event(self, level: str, message: str) -> None:
        """Show what would be in the run's log."""
        self.shown.line(f"{level}: {message}")

    def find_stage(self, key: str) -> FoundStage | None:
        """The recorded stage with this key."""
        if not self.has_store:
            return None
        with engine.read_session() as s:
            return stages.find_stage(s, key)

    def find_run(self, run_id: int) -> FoundRun | None:
        """A finished run; raises SpecError where there is no store."""
        if not self.has_store:
            remedy = "Name the store in SLIMBOARD_HOME or SLIMBOARD_DATABASE_URL."
            raise SpecError.of("model.source", f"run:{run_id}", "needs the store of runs, and there is none", remedy)
        with engine.read_session() as s:
            return stages.find_run(s, run_id)

    def stage(self, record: StageRecord) -> None:
        """Stages are returned at the end."""

    def report_damage(self, damaged: DamagedArtifact) -> None:
        """Say so; a worker that meets the new artifact measures it again and tells the store's runs."""
        self.event("warning", damage_text(damaged))

    def list_outdated(self, key: str) -> list[tuple[str, str]]:
        """Comparisons are the store's."""
        return []

    def compare(self, key: str, reference_key: str, comparison: Comparison) -> None:
        """Comparisons are the store's."""

    def note_environment(self, environment: dict[str, Any]) -> None:
        """The environment is this one."""


def execute(spec: RunSpec, device: str | None) -> dict[str, Any]:
    """Execute a spec and return what `--json` prints. Raises SpecError.

    It may name every file that its user can read: the data folders bind servers only.
    """
    with contextlib.redirect_stdout(sys.stderr), permit_all():  # stdout is for the result alone
        import torch

        from core import publish
        from core.engine import pipeline
        from core.provides import provides

        catalogue = Catalogue(**publish.catalogue())
        validate(spec, catalogue)
        chosen = device or (spec.device if spec.device != "any" else "gpu" if torch.cuda.is_available() else "cpu")
        if chosen == "gpu" and not torch.cuda.is_available():
            raise SpecError.of("device", "gpu", "is not there: PyTorch sees no CUDA device", "Choose cpu.")
        _require_all(spec, catalogue, provides(chosen))
        artifacts = ArtifactStore(settings().artifacts_url, settings().home.absolute() / "cache")
        reason = _why_no_store()
        record = TerminalRecord(spec.limits.minutes, has_store=reason is None)
        if reason:
            record.event("warning", f"recorded stages are not reused: {reason}")
        if spec.limits.memory_gb is not None:
            record.event("warning", "limits.memory_gb is kept by workers, not by `slimboard run`.")
        try:
            measured = pipeline.execute(spec, record, artifacts=artifacts, device=chosen)
        finally:
            record.shown.clear()
    return _result(measured, artifacts)


def _require_all(spec: RunSpec, catalogue: Catalogue, provided: Collection[str]) -> None:
    """Raise SpecError where a technique or runtime requires what this machine does not provide."""
    missing = {need: user for need, user in catalogue.requires(spec).items() if need not in provided}
    if missing:
        remedy = "Install it here, or queue the run for a worker that has it."
        raise SpecError(
            [Problem("spec", user, f"requires {need}, which is not here", remedy) for need, user in missing.items()]
        )


def _why_no_store() -> str | None:
    """Why the store cannot be asked: empty where there is none; None where it can be asked."""
    if not shell.store_exists():
        return ""
    try:
        found, expected = engine.revision()
    except OperationalError as error:
        return f"the store does not answer ({error.orig})"
    return None if found == expected else f"the store is at revision {found}, not {expected}"


def _result(measured: list[StageRecord], artifacts: ArtifactStore) -> dict[str, Any]:
    last = measured[-1]
    folder: Path = artifacts.open(last.measured.key)
    return {
        "stages": [stage_object(stage.position, stage.measured, stage.fidelity, stage.latencies) for stage in measured],
        "artifact": str(folder),
        "reload_max_error": last.measured.reload_max_error,
    }
