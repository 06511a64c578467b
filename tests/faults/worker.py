"""A worker as it is, but for what it executes: `python -m tests.faults.worker cpu`."""

import sys

from tests.faults import jobs
from worker import loop, supervisor
from worker.celery_app import app, make_worker_arguments


def main() -> None:
    """Start celery with jobs that misbehave on demand, in processes that need not load torch."""
    supervisor.JOB = f"{jobs.__name__}:run"
    loop.DESCRIBE = f"{jobs.__name__}:describe"
    loop.PRELOADED[:] = [jobs.__name__]
    app.worker_main(make_worker_arguments(sys.argv[1])[2:])


if __name__ == "__main__":
    main()
