"""Supervises one run: its process, lease, cancellation, limits, log and outcome. Loads no torch."""

import logging
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.connection import wait

import psutil
from sqlalchemy.exc import OperationalError

from core import fresh_process
from core.fresh_process import Raised, Returned
from core.settings import settings
from core.store import events, queue
from core.store.engine import read_session, session
from core.store.models import FailureClass, RunStatus
from core.store.queue import Ended
from worker import failure
from worker.claim import Abandoned, Claim, GivenBack, Outcome
from worker.output import Output

JOB = "worker.job:run"  # what executes a claim in the fresh process
OOM_SCORE = 800  # the kernel ends the run before the worker, and what the run measures before the run
TICK_SECONDS = 0.1
LOOK_SECONDS = 0.5  # between looks at the cancel flag and at memory
LEASE_SHARE = 6  # the lease is renewed so many times in its length
LOG_SECONDS = 1.0
EXIT_SECONDS = 3.0  # from the answer to the end of the process
CANCEL_GRACE = (1.5, 2.5)  # seconds until SIGTERM and until SIGKILL: with the look, below 5 s in total
LIMIT_GRACE = (0.0, 3.0)

log = logging.getLogger(__name__)


def supervise(claim: Claim, stopping: threading.Event, job: str | None = None) -> Outcome:
    """Execute a claimed run in a fresh process and return how it ended; `stopping` makes it save and requeue."""
    watch = RunWatch(claim, job or JOB)
    try:
        while not watch.ended():
            if stopping.is_set():
                watch.ask(GivenBack(), (0.0, settings().stop_seconds))
            watch.look()
        return watch.outcome()
    finally:
        watch.close()


class RunWatch:
    """A run's process and its supervision state."""

    def __init__(self, claim: Claim, job: str):
        self.claim = claim
        self.ooms = failure.count_oom_kills()
        self.started = self.renewed = self.looked = self.logged = time.monotonic()
        self.child = fresh_process.start(job, claim, capture=True, oom_score=OOM_SCORE)
        assert self.child.output is not None
        self.output = Output(self.child.output)
        self.answer: Returned | Raised | None = None
        self.ending: Outcome | None = None  # how the run ends when its process does not say otherwise
        self.signals: list[tuple[float, signal.Signals]] = []  # when to send which

    def ended(self) -> bool:
        """Wait briefly; returns whether the process has finished or died."""
        waited = [self.child.answers, self.child.process.sentinel]
        if self.output.open:
            waited.append(self.output.descriptor)
        ready = wait(waited, TICK_SECONDS)
        self.output.read()
        if self.child.answers in ready:
            self.answer = self.child.answer()
            self.child.process.join(EXIT_SECONDS)
            return True
        if self.child.process.sentinel in ready:
            self.child.process.join(EXIT_SECONDS)
            return True
        return False

    def look(self) -> None:
        """Handle what is due: lease, cancel flag, limits, log and signals."""
        now = time.monotonic()
        if now - self.looked >= LOOK_SECONDS:
            self.looked = now
            self._watch_limits()
            self._ask_store(now)
        while self.signals and self.signals[0][0] <= now:
            number = self.signals.pop(0)[1]
            if number == signal.SIGKILL:
                self.child.kill()
            else:
                self.child.signal(number)

    def ask(self, ending: Outcome, grace: tuple[float, float]) -> None:
        """End the process with SIGTERM, then with SIGKILL after this many seconds; the first reason counts."""
        if self.ending is None:
            self.ending = ending
            now = time.monotonic()
            self.signals = [(now + grace[0], signal.SIGTERM), (now + grace[1], signal.SIGKILL)]

    def outcome(self) -> Outcome:
        """How the run ended, after its process has ended."""
        seconds = time.monotonic() - self.started
        outcome = self._outcome()
        try:
            self._write_log()
        except OperationalError as error:  # how it ended counts more than its last lines
            log.warning("run %d: the end of its log could not be recorded: %s", self.claim.run_id, error)
        return replace(outcome, seconds=seconds) if isinstance(outcome, Ended) else outcome

    def close(self) -> None:
        """End the process and everything that it started."""
        self.child.close()

    def _outcome(self) -> Outcome:
        answer = self.answer.value if isinstance(self.answer, Returned) else None
        finished = isinstance(answer, Ended) and answer.status == RunStatus.DONE
        says_itself = finished or self.ending is None or isinstance(self.ending, GivenBack)
        if says_itself and isinstance(answer, Ended | GivenBack | Abandoned):
            return answer
        if self.ending is not None:
            return self.ending
        if isinstance(self.answer, Raised):
            raised = self.answer
            self.output.lines += [(time.time(), "error", raised.trace)]
            message = f"its process could not start: {raised.name}: {raised.text}"
            return Ended(RunStatus.FAILED, FailureClass.INFRASTRUCTURE, message)
        return Ended(RunStatus.FAILED, *failure.classify_exit(self.child.exit_code(), self.ooms))

    def _watch_limits(self) -> None:
        if self.claim.minutes is not None and time.monotonic() - self.started > self.claim.minutes * 60:
            message = f"it exceeded its limit of {self.claim.minutes:g} minutes"
            self.ask(Ended(RunStatus.FAILED, FailureClass.TIME_LIMIT, message), LIMIT_GRACE)
        if self.claim.memory_gb is not None and self._resident_bytes() > self.claim.memory_gb * 2**30:
            message = f"it exceeded its limit of {self.claim.memory_gb:g} GB of memory"
            self.ask(Ended(RunStatus.FAILED, FailureClass.OUT_OF_MEMORY, message), (0.0, 0.0))

    def _resident_bytes(self) -> int:
        total = 0
        try:
            process = psutil.Process(self.child.pid)
            for each in (process, *process.children(recursive=True)):
                total += each.memory_info().rss
        except psutil.NoSuchProcess:
            return total  # it ended meanwhile
        return total

    def _ask_store(self, now: float) -> None:
        """Renew the lease when due, check the cancel flag, write the log."""
        lease = settings().lease_seconds
        try:
            asked = self._renewed(lease) if now - self.renewed >= lease / LEASE_SHARE else self._cancel_asked()
            if now - self.logged >= LOG_SECONDS:
                self.logged = now
                self._write_log()
        except OperationalError as error:
            log.warning("run %d: the store is unreachable: %s", self.claim.run_id, error)
            if now - self.renewed > lease:  # another worker may have the run by now
                self.ask(Abandoned(), (0.0, 0.0))
            return
        if asked is None:
            self.ask(Abandoned(), (0.0, 0.0))
        elif asked:
            self.ask(Ended(RunStatus.CANCELLED), CANCEL_GRACE)

    def _renewed(self, lease: float) -> bool | None:
        began = time.monotonic()
        with session() as s:
            asked = queue.renew_lease(s, self.claim.run_id, self.claim.attempt, lease)
        self.renewed = began
        return asked

    def _cancel_asked(self) -> bool | None:
        with read_session() as s:
            return queue.is_cancel_asked(s, self.claim.run_id, self.claim.attempt)

    def _write_log(self) -> None:
        self.output.read()
        if self.output.lines:
            with session() as s:
                if queue.is_ours(s, self.claim.run_id, self.claim.attempt) is not None:
                    events.add_events(s, self.claim.run_id, self.claim.attempt, self.output.take())
