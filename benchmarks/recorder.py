"""Curve points a second through the recorder, beside MLflow's `log_batch`.

    python -m benchmarks.recorder [--points 20000] [--rounds 5]

Both write to an SQLite file of their own on the same disk, in one process, in turn (A B A B ...). The
recorder receives its points one by one, as a training reports them, and batches by itself; MLflow's client
receives batches of 1,000, the most that it takes. Without MLflow (`pip install .[bench]`) its row is left out.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BATCH = 1000
Write = Callable[[int, int], None]  # number of points, round


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slim-"))
    os.environ["SLIMBOARD_HOME"] = str(folder)
    try:
        writers = {"Slimboard recorder": _recorder()}
        mlflow = _mlflow(folder)
        if mlflow is None:
            print("MLflow is not installed (pip install .[bench]); its row is left out.")
        else:
            writers["MLflow log_batch"] = mlflow
        rates = _measure(writers, arguments.points, arguments.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(rates, arguments.points)


def _measure(writers: dict[str, Write], n_points: int, rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in writers}
    for index in range(rounds + 1):
        for name, write in writers.items():
            started = time.perf_counter()
            write(n_points, index)
            if index:  # the first round warms up
                rates[name].append(n_points / (time.perf_counter() - started))
    return rates


def _recorder() -> Write:
    from core.store import engine, queue
    from tests import factories
    from worker.claim import Claim
    from worker.recorder import Recorder

    engine.upgrade()
    with engine.session() as s:
        run_id = factories.submit(s).id
        assert queue.claim_next_run(s, None, "cpu", [], 3600.0) is not None

    def write(n_points: int, index: int) -> None:
        recorder = Recorder(Claim(run_id, 1, "cpu"))
        for step in range(n_points):
            recorder.curve(f"loss{index}", step, 1.0 / (step + 1))
            recorder.progress(step / n_points, "update")
        recorder.flush()

    return write


def _mlflow(folder: Path) -> Write | None:
    try:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient
    except ImportError:
        return None
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run_id = client.create_run("0").info.run_id

    def write(n_points: int, index: int) -> None:
        for start in range(0, n_points, BATCH):
            steps = range(start, min(start + BATCH, n_points))
            client.log_batch(run_id, metrics=[Metric(f"loss{index}", 1.0 / (k + 1), k, k) for k in steps])

    return write


def _print(rates: dict[str, list[float]], n_points: int) -> None:
    first = next(iter(rates))
    print(f"{n_points} points a round, median of {len(rates[first])} rounds in turn")
    print(f"{'':24} {'points/s':>12} {'lowest':>12} {'recorder is':>14}")
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[first], values, strict=True)]
        ratio = "" if name == first else f"{statistics.median(ratios):.1f} × as fast"
        print(f"{name:24} {statistics.median(values):12,.0f} {min(values):12,.0f} {ratio:>14}")


if __name__ == "__main__":
    main()
