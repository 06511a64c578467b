"""Constants of the store: states of runs, classes of failures, names of defaults. Loads no SQLAlchemy."""

import enum

LOCAL_USER = "local"  # where nobody signs in


class RunStatus(enum.StrEnum):
    """The state of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING)


class FailureClass(enum.StrEnum):
    """The cause of a failure; only `infrastructure` and `lost` are retried."""

    OUT_OF_MEMORY = "out of memory"
    BAD_SPEC = "bad spec"
    TECHNIQUE = "technique"
    TIME_LIMIT = "time limit"
    KILLED = "killed"  # its process, from outside
    INFRASTRUCTURE = "infrastructure"
    LOST = "lost"
