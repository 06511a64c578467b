"""One attempt at a run in its own process: its record, its memory limit, and how it ended."""

import resource
import sys
import time
import traceback
from collections.abc import Callable

from core.errors import Cancelled, Interrupted
from core.store.models import RunStatus
from core.store.queue import Ended
from worker.claim import Abandoned, Claim, Deferred, GivenBack, Outcome, TakenAway
from worker.failure import classify, explain
from worker.recorder import Recorder

SLACK_BYTES = 2**30  # of address space that a process reserves and never touches


def attempt(claim: Claim, execute: Callable[[Claim, Recorder], None]) -> Outcome:
    """Execute a claimed run and return how it ended, after everything is recorded in the store."""
    started = time.monotonic()
    _limit_memory(claim)
    recorder = Recorder(claim)
    recorder.listen_for_stop()
    try:
        _execute(claim, recorder, execute)
    except Cancelled:
        return Ended(RunStatus.CANCELLED, seconds=time.monotonic() - started)
    except Deferred as other:
        return GivenBack(other.key)
    except Interrupted:
        return GivenBack()
    except TakenAway:
        return Abandoned()
    except Exception as error:  # noqa: BLE001  whatever a technique raises becomes the run's failure
        print(traceback.format_exc(), file=sys.stderr)  # noqa: T201  the log, which the supervisor keeps
        return Ended(RunStatus.FAILED, classify(error), explain(error), time.monotonic() - started)
    return Ended(RunStatus.DONE, seconds=time.monotonic() - started)


def _execute(claim: Claim, recorder: Recorder, execute: Callable[[Claim, Recorder], None]) -> None:
    """Execute, and flush the record however it ends: an interrupted training continues after its last point."""
    try:
        execute(claim, recorder)
    finally:
        recorder.flush()


def _limit_memory(claim: Claim) -> None:
    """Let allocations far beyond the limit fail; the supervisor watches the actual use.

    Not with a GPU, whose driver reserves huge address ranges.
    """
    if claim.memory_gb is not None and claim.device == "cpu" and sys.platform == "linux":
        limit = int(claim.memory_gb * 2**30) + SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
