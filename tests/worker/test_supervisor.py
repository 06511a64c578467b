"""What becomes of a run's end where the store cannot be reached; whole runs are in tests/faults."""

import time

from sqlalchemy.exc import OperationalError

from core.fresh_process import Returned
from core.store.models import RunStatus
from core.store.queue import Ended
from worker.claim import Claim
from worker.supervisor import RunWatch


class Answered(RunWatch):
    """The watch over a process that has said it is done, while the store is away."""

    def __init__(self):
        self.claim = Claim(1, 1, "cpu")
        self.started = time.monotonic()
        self.answer = Returned(Ended(RunStatus.DONE))
        self.ending = None

    def _write_log(self):
        raise OperationalError("INSERT", {}, Exception("the store is away"))


def test_a_run_that_is_done_stays_so_where_its_last_lines_cannot_be_written():
    assert Answered().outcome().status == RunStatus.DONE
