"""Names that rows of the store hold: where a run stands, why it failed, who works alone. Loads no SQLAlchemy."""

import enum

LOCAL_USER = "local"  # where nobody signs in


class RunStatus(enum.StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING)


class FailureClass(enum.StrEnum):
    """Whose fault a failure was; only `infrastructure` and `lost` are retried."""

    OUT_OF_MEMORY = "out of memory"
    BAD_SPEC = "bad spec"
    TECHNIQUE = "technique"
    TIME_LIMIT = "time limit"
    KILLED = "killed"  # its process, from outside
    INFRASTRUCTURE = "infrastructure"
    LOST = "lost"
