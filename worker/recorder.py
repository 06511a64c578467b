"""A run's record in the store: progress, curves and log in batches, stages immediately."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from core.engine.recording import damage_text
from core.errors import Cancelled, Interrupted
from core.integrity import DamagedArtifact
from core.measure import lock
from core.measured import Comparison, FoundRun, FoundStage, StageRecord
from core.store import curves, events, queue, renewal, runs, stages
from core.store.engine import read_session, session
from worker.claim import Claim, Deferred, TakenAway

FLUSH_SECONDS = 0.5
FLUSH_POINTS = 1000
PACE_SECONDS = 2.0  # after which the pace of a step is known

OpenSession = Callable[[], AbstractContextManager[Session]]


class Recorder:
    """Writes for one attempt of a run; each write first checks that the attempt is still current.

    Raises Cancelled, Interrupted (the worker stops) and TakenAway from `progress` and `begin_step`.
    """

    def __init__(self, claim: Claim, write: OpenSession = session, read: OpenSession = read_session):
        self.claim, self.write, self.read = claim, write, read
        self.stop_asked = False
        self.cancel_asked = False
        self.flushed = self.step_began = time.monotonic()
        self.position, self.n_positions, self.label = 0, 1, ""
        self.share, self.text = 0.0, "starting"
        self.fraction = 0.0  # of the step
        self.pace_from: tuple[float, float] | None = None  # when the step first told how much of it was done, and that
        self.step_seconds: list[float] = []  # of the steps that are over
        self.points: list[tuple[str, int, float]] = []
        self.lines: list[tuple[float, str, str]] = []
        self.not_finite: set[str] = set()

    def listen_for_stop(self) -> None:
        """Let SIGTERM stop the run at its next progress report (in the process's main thread)."""

        def ask(number: int, frame: object) -> None:
            self.stop_asked = True

        signal.signal(signal.SIGTERM, ask)

    def begin_step(self, position: int, n_positions: int, label: str, key: str) -> None:
        """A step begins; raises Deferred if another run is computing its stage."""
        at = time.monotonic()
        if self.label:
            self.step_seconds.append(at - self.step_began)
        self.step_began, self.pace_from, self.fraction = at, None, 0.0
        self.position, self.n_positions, self.label = position, n_positions, label
        self.share, self.text = self._overall(0.0), label
        self.flush()
        self._stop_if_asked()
        with self.write() as s:
            if not queue.start_computing(s, self.claim.run_id, self.claim.attempt, key):
                raise Deferred(key)

    def progress(self, fraction: float, text: str) -> None:
        """Report the share of the step that is done (0..1); waits while another process on this host measures."""
        self.share, self.text = self._overall(fraction), f"{self.label}: {text}" if self.label else text
        self.fraction = fraction
        self.pace_from = self.pace_from or (time.monotonic(), fraction)
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.flush()
        self._stop_if_asked()
        lock.pause_while_measuring(self._stop_if_asked)

    def curve(self, name: str, step: int, value: float) -> None:
        """Add a point to a curve of the current step; values that are not finite are logged once."""
        if not math.isfinite(value):
            if name not in self.not_finite:
                self.event("warning", f"{name} is {value} at update {step}; such points are not plotted")
            self.not_finite.add(name)
            return
        self.points.append((f"{self.position}/{name}", step, float(value)))
        if len(self.points) >= FLUSH_POINTS:
            self.flush()

    def event(self, level: str, message: str) -> None:
        """Add a line to the log."""
        self.lines.append((time.time(), level, message))
        if level != "info":
            self.flush()

    def find_stage(self, key: str) -> FoundStage | None:
        """The recorded stage with this key."""
        with self.read() as s:
            return stages.find_stage(s, key)

    def find_run(self, run_id: int) -> FoundRun | None:
        """A finished run."""
        with self.read() as s:
            return stages.find_run(s, run_id)

    def stage(self, record: StageRecord) -> None:
        """Record a measured stage at its position in the run, with its points and log events."""
        self.flush()
        with self.write() as s:
            self._hold(s)
            if not record.reused:
                renewal.replace_results(s, self.claim.run_id, record.measured, record.latencies, record.reference_key)
            stage_id = stages.add_stage(
                s, record.measured, record.artifact, record.artifact_bytes, record.manifest_sha256
            )
            reference_id = stages.find_stage_id(s, record.reference_key) if record.reference_key else None
            stages.attach_stage(
                s,
                self.claim.run_id,
                record.position,
                stage_id,
                reused=record.reused,
                reference_stage_id=reference_id,
                comparison=record.comparison,
                fidelity=record.fidelity,
            )
            stages.set_latencies(s, self.claim.run_id, stage_id, record.latencies, reference_id)
            queue.stop_computing(s, self.claim.run_id, self.claim.attempt)

    def report_damage(self, damaged: DamagedArtifact) -> None:
        """Tell this run and every run with the stage that its artifact was damaged and discarded."""
        self.event("warning", damage_text(damaged))
        with self.write() as s:
            self._hold(s)
            found_by = f"Run {self.claim.run_id}"
            renewal.report_damage(s, damaged, found_by=found_by, except_run=self.claim.run_id)

    def list_outdated(self, key: str) -> list[tuple[str, str]]:
        """Pairs (stage, reference) with the stage `key` in them whose comparison no longer holds."""
        with self.read() as s:
            return renewal.list_outdated(s, key)

    def compare(self, key: str, reference_key: str, comparison: Comparison) -> None:
        """Record the comparison of a stage with a reference in every run that lacks it."""
        with self.write() as s:
            self._hold(s)
            renewal.compare(s, key, reference_key, comparison)

    def note_environment(self, environment: dict[str, Any]) -> None:
        """Record the run's environment."""
        with self.write() as s:
            self._hold(s)
            runs.note_environment(s, self.claim.run_id, environment)

    def flush(self) -> None:
        """Write everything pending in one transaction."""
        waiting_points, waiting_lines = self.points, self.lines
        self.points, self.lines = [], []
        with self.write() as s:
            asked = queue.set_progress(
                s, self.claim.run_id, self.claim.attempt, self.share, self.text, self._seconds_left()
            )
            if asked is None:
                raise TakenAway
            curves.add_points(s, self.claim.run_id, waiting_points)
            events.add_events(s, self.claim.run_id, self.claim.attempt, waiting_lines)
        self.cancel_asked = asked
        self.flushed = time.monotonic()

    def _hold(self, s: Session) -> None:
        asked = queue.is_ours(s, self.claim.run_id, self.claim.attempt)
        if asked is None:
            raise TakenAway
        self.cancel_asked = asked

    def _stop_if_asked(self) -> None:
        if self.cancel_asked:
            raise Cancelled
        if self.stop_asked:
            raise Interrupted

    def _overall(self, fraction: float) -> float:
        return min(1.0, (max(self.position, 0) + min(1.0, max(0.0, fraction))) / max(1, self.n_positions))

    def _seconds_left(self) -> float | None:
        """Assumes that this step keeps its pace, and that later steps take as long as earlier ones on average."""
        if self.pace_from is None:
            return None
        since, before = self.pace_from
        passed, done = time.monotonic() - since, self.fraction - before
        if passed < PACE_SECONDS or done <= 0:
            return None
        here = passed / done * (1.0 - self.fraction)
        later = self.n_positions - 1 - max(self.position, 0)
        return here + later * fmean(self.step_seconds or [here + passed])
