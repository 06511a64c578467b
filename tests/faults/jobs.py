"""What runs do in the fault tests; a run's name says it: "sleep 60", "crash", "train 100" ..."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace

from core.errors import Interrupted
from core.measured import StageRecord
from core.store import runs
from core.store.engine import read_session
from tests import factories
from worker.attempt import attempt
from worker.claim import Claim, Outcome, find_checkpoints
from worker.recorder import Recorder


def describe(device: str) -> SimpleNamespace:
    """A worker that offers nothing in particular."""
    return SimpleNamespace(hardware={"name": "test"}, provides=[device], offers={}, entries=[])


def run(claim: Claim) -> Outcome:
    """Do what the run's name says."""
    return attempt(claim, _named)


def _named(claim: Claim, recorder: Recorder) -> None:
    with read_session() as s:
        name, *arguments = runs.get_run(s, claim.run_id).name.split()
    print(f"pid {os.getpid()}", flush=True)  # noqa: T201  output is what is tested
    recorder.event("warning", f"begun by {os.getppid()}")
    JOBS[name](recorder, *arguments)


def sleep(recorder: Recorder, seconds: str) -> None:
    """Report progress all the while, as a training does."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        recorder.progress(0.5, "sleeping")
        time.sleep(0.02)


def deaf(recorder: Recorder, seconds: str) -> None:
    """Compute without ever asking, SIGTERM ignored, as a kernel in the middle of an evaluation does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(float(seconds))


def crash(recorder: Recorder) -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def fail(recorder: Recorder, *words: str) -> None:
    """Raise."""
    raise ValueError(" ".join(words))


def hoard(recorder: Recorder) -> None:
    """Take more and more memory."""
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1)) * 20_000_000)
        recorder.progress(0.5, "hoarding")
        time.sleep(0.05)


def overreach(recorder: Recorder) -> None:
    """Ask for more memory at once than any machine has."""
    bytearray(2**50)


def train(recorder: Recorder, n_steps: str) -> None:
    """Count to n in three stages, with curves; keep the place when interrupted, as a training does."""
    for position, key in enumerate(("source", "first", "second")):
        recorder.begin_step(position, 3, key, key)
        if recorder.find_stage(key) is None and position:
            _updates(recorder, key, int(n_steps))
        reused = recorder.find_stage(key) is not None
        measured = factories.measured(key)
        record = StageRecord(position, measured, key, 1, "0" * 64, reused, "source", None, [factories.latency()])
        recorder.stage(record)


def _updates(recorder: Recorder, key: str, n_steps: int) -> None:
    find_checkpoints().mkdir(parents=True, exist_ok=True)
    place = find_checkpoints() / f"{key}.txt"
    done = int(place.read_text()) if place.exists() else 0
    recorder.event("info", f"{key} from {done}")
    for step in range(done, n_steps):
        try:
            recorder.progress(step / n_steps, f"update {step}")
        except Interrupted:
            place.write_text(str(step))
            raise
        recorder.curve("loss", step, 1.0 / (step + 1))
        time.sleep(0.02)


JOBS: dict[str, Callable[..., None]] = {
    "sleep": sleep,
    "deaf": deaf,
    "crash": crash,
    "fail": fail,
    "hoard": hoard,
    "overreach": overreach,
    "train": train,
}
