"""The life of a worker: it registers in the store, claims runs until none is left, polls by a timer, and leaves."""

import logging
import os
import platform
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import OperationalError

from core.fresh_process import in_fresh_process, warm_up
from core.settings import settings
from core.store import events, queue, techniques, workers
from core.store.engine import read_session, session
from core.store.models import RunStatus
from core.store.queue import Ended
from core.store.waiting import provided
from worker import leftovers, shared, supervisor
from worker.claim import Claim, GivenBack, Outcome

PRELOADED = ["core.engine.pipeline", "worker.job"]  # in the server that forks the processes of runs
DESCRIBE = "worker.hardware:describe"  # who this worker is, asked in a fresh process
DESCRIBE_SECONDS = 300.0  # to import everything from a cold disk
FORGET_SECONDS = 7 * 86_400.0  # unseen workers are forgotten after a week
EXIT_SECONDS = 10.0  # what is left of a stopping worker after its run has gone back

log = logging.getLogger(__name__)


@dataclass
class Here:
    """This worker."""

    worker_id: int
    device: str
    provides: list[str]
    stopping: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)  # one run at a time
    woken: threading.Event = field(default_factory=threading.Event)


def enter(device: str) -> Here:
    """Publish this worker and what it provides, and start its timer."""
    warm_up(PRELOADED)
    described: Any = in_fresh_process(DESCRIBE, device, timeout=DESCRIBE_SECONDS)
    artifacts = shared.read_artifacts_id()
    with session() as s:
        shared.check_shared(artifacts, workers.list_workers(s))
        techniques.publish(s, described.entries)
        worker_id = workers.register_worker(
            s,
            f"{platform.node()}-{device}-{os.getpid()}",
            device,
            hardware={**described.hardware, "artifacts": artifacts},
            offers=described.offers,
            provides=described.provides,
        )
        workers.forget_workers(s, FORGET_SECONDS)
    leftovers.sweep()
    here = Here(worker_id, device, sorted(provided(described.provides, described.offers)))
    threading.Thread(target=_keep_time, args=(here,), name="timer", daemon=True).start()
    return here


def work(here: Here) -> None:
    """Claim and execute runs until there are none; returns immediately while this worker has one."""
    here.woken.set()
    while here.woken.is_set() and not here.stopping.is_set():
        if not here.busy.acquire(blocking=False):
            return  # who holds it will see that we were woken
        try:
            here.woken.clear()
            while not here.stopping.is_set() and _work_once(here):
                pass
        finally:
            here.busy.release()


def leave(here: Here) -> None:
    """Return the run to the queue, and record that this worker stops."""
    here.stopping.set()
    if here.busy.acquire(timeout=settings().stop_seconds + EXIT_SECONDS):
        here.busy.release()
    with session() as s:
        workers.stop_worker(s, here.worker_id)


def _work_once(here: Here) -> bool:
    with session() as s:
        run = queue.claim_next_run(s, here.worker_id, here.device, here.provides, settings().lease_seconds)
        if run is None:
            return False
        limits = run.spec.get("limits", {})
        claim = Claim(run.id, run.attempt, here.device, limits.get("minutes"), limits.get("memory_gb"))
        if run.attempt > 1:
            text = f"attempt {run.attempt}, continues after the last recorded stage"
            events.add_events(s, run.id, run.attempt, [(time.time(), "info", text)])
    log.info("run %d, attempt %d: started", claim.run_id, claim.attempt)
    outcome = supervisor.supervise(claim, here.stopping)
    log.info("run %d, attempt %d: %s", claim.run_id, claim.attempt, outcome)
    _end(claim, outcome)
    return True


def _end(claim: Claim, outcome: Outcome) -> None:
    """Record how an attempt ended, retrying for as long as the run is ours."""
    deadline = time.monotonic() + settings().lease_seconds
    while True:
        try:
            with session() as s:
                if isinstance(outcome, GivenBack):
                    queue.give_back(s, claim.run_id, claim.attempt, next_key=outcome.next_key)
                elif isinstance(outcome, Ended):
                    if outcome.status == RunStatus.FAILED and outcome.failure is not None:
                        line = f"{outcome.failure.value}: {outcome.message}"
                        events.add_events(s, claim.run_id, claim.attempt, [(time.time(), "error", line)])
                    queue.finish_run(s, claim.run_id, claim.attempt, outcome)
            return
        except OperationalError as error:
            if time.monotonic() > deadline:
                log.error("run %d: its result could not be recorded: %s", claim.run_id, error)
                return  # the lease runs out, and the run is returned
            time.sleep(1.0)


def _keep_time(here: Here) -> None:
    while not here.stopping.wait(settings().timer_seconds):
        try:
            _look(here)
        except OperationalError as error:
            log.warning("the store is unreachable: %s", error)


def _look(here: Here) -> None:
    """Send a heartbeat, requeue lost runs, and start work that no message announced."""
    with session() as s:
        workers.record_heartbeat(s, here.worker_id)
        for lost in queue.return_lost_runs(s):
            log.warning("run %d was lost because its worker stopped responding: %s", lost.id, lost.status.value)
    with read_session() as s:
        waits = queue.has_work(s, here.device)
    if waits and not here.busy.locked():
        threading.Thread(target=work, args=(here,), name="work", daemon=True).start()
