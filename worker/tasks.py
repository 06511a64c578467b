"""Celery tasks of a worker, and its start and stop. Loaded by workers only; loads no torch."""

import logging
import os
import threading
import time
from typing import Any

from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from core.errors import Problem
from core.fresh_process import FreshProcessError, in_fresh_process
from core.settings import settings
from core.store import checks
from core.store.engine import read_session, session
from worker import loop
from worker.celery_app import CHECK_QUEUE, app
from worker.shared import NotShared

CHECK_SECONDS = 60.0  # longest that a spec may take to be checked

log = logging.getLogger(__name__)
_here: loop.Here | None = None


@app.task
def work() -> None:
    """Claim runs until there are none that this worker can execute."""
    if _here is not None:
        loop.work(_here)


@app.task
def check(spec_hash: str) -> None:
    """Run the preflight check of a spec; the answer is a row."""
    with read_session() as s:
        spec = checks.find_question(s, spec_hash)
    if spec is None:
        return  # answered already
    try:
        problems: list[Problem] = in_fresh_process("worker.checking:problems", spec, timeout=CHECK_SECONDS)
    except (FreshProcessError, TimeoutError) as error:
        problems = [Problem("spec", "", f"could not be checked: {error}", "Submit the run to see the full error.")]
    with session() as s:
        checks.answer(s, spec_hash, problems)


@signals.celeryd_after_setup.connect
def _enter(instance: Any, **_: Any) -> None:
    """Register before connecting to Redis: the timer works without it."""
    global _here
    device = next(queue for queue in instance.app.amqp.queues.consume_from if queue != CHECK_QUEUE)
    try:
        _here = loop.enter(device)
    except (FreshProcessError, TimeoutError, NotShared, SQLAlchemyError) as error:
        log.error("this worker cannot start: %s", error)
        raise SystemExit(1) from error  # celery would go on without us


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    """On SIGTERM or Ctrl-C, the run is saved and returned to the queue while celery waits for its task."""
    if _here is not None:
        _here.stopping.set()
        threading.Thread(target=_leave_for_good, args=(_here,), daemon=True).start()


@signals.worker_shutdown.connect
def _leave(**_: Any) -> None:
    if _here is not None:
        loop.leave(_here)


def _leave_for_good(here: loop.Here) -> None:
    """Celery would wait forever for a lost Redis; a stopping worker does not."""
    loop.leave(here)
    time.sleep(loop.EXIT_SECONDS)
    log.warning("celery did not exit within %g s", loop.EXIT_SECONDS + settings().stop_seconds)
    os._exit(0)
