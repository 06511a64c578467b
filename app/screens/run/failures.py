"""What to do about each class of failure, in words."""

from core.store.models import FailureClass

REMEDIES = {
    FailureClass.OUT_OF_MEMORY: "Clone it with a smaller batch or model, raise limits.memory_gb, "
    "or run it on a device with more memory.",
    FailureClass.BAD_SPEC: "Clone it and mend what the message names; requeuing the same spec fails again.",
    FailureClass.TECHNIQUE: "The technique could not do its work on this model; the log says where. "
    "Clone it with other settings.",
    FailureClass.TIME_LIMIT: "Raise limits.minutes in a clone. Stages that were finished are reused.",
    FailureClass.KILLED: "Something outside ended its process, often the system when memory ran out. "
    "Look at the host, then requeue.",
    FailureClass.INFRASTRUCTURE: "Store, disk or network failed, not the run. Look at the System page, then requeue; "
    "finished stages stand.",
    FailureClass.LOST: "Its worker went silent three times. Look at the worker's log, then requeue; "
    "finished stages stand.",
}


def remedy(failure: FailureClass | None) -> str:
    """What to do next."""
    return REMEDIES[failure] if failure else "The log says more. Requeue it, or clone it with other settings."
