"""What to do about each class of failure."""

from core.store.models import FailureClass

REMEDIES = {
    FailureClass.OUT_OF_MEMORY: "Clone the run with a smaller batch or model, raise limits.memory_gb, "
    "or use a device with more memory.",
    FailureClass.BAD_SPEC: "Clone the run and fix what the message names. Requeuing the same spec will fail again.",
    FailureClass.TECHNIQUE: "The technique failed on this model; see the log. Clone the run with other settings.",
    FailureClass.TIME_LIMIT: "Clone the run with a larger limits.minutes. Finished stages are reused.",
    FailureClass.KILLED: "The process was killed from outside, often by the system when it ran out of memory. "
    "Check the host, then requeue.",
    FailureClass.INFRASTRUCTURE: "The store, disk or network failed, not the run. Check the System page, then requeue. "
    "Finished stages are kept.",
    FailureClass.LOST: "Its worker stopped responding three times. Check the worker's log, then requeue. "
    "Finished stages are kept.",
}


def find_remedy(failure: FailureClass | None) -> str:
    """What to do next."""
    return REMEDIES[failure] if failure else "See the log. Requeue the run, or clone it with other settings."
