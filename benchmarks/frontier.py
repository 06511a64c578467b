"""How long finding the frontier takes, beside other libraries' ways, in the same run.

    python benchmarks/frontier.py [--points 100000]

Peers are used where they are installed: moocore (C), paretoset (NumPy, and Numba where that is installed).
Three clouds of points: "independent" axes (a small frontier), "trade-off" (better on one axis is worse on the
others, with noise: a large frontier), and "anti-chain" (nothing shuts anything out: everything is on it).
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout, installed or not

from core.analysis.pareto import find_frontier

ROUNDS = 5
PATIENCE_SECONDS = 60
Points = NDArray[np.float64]
Peer = Callable[[Points], NDArray[np.bool_]]


def clouds(n: int) -> dict[str, Points]:
    """Points [n, 3] by name."""
    rng = np.random.default_rng(0)
    independent = rng.random((n, 3))
    plane = rng.dirichlet([1, 1, 1], size=n)
    return {
        "independent": independent,
        "trade-off": plane + 0.05 * rng.random((n, 3)),
        "anti-chain": plane,
    }


def peers() -> dict[str, Peer]:
    """Ours first, then those that are installed."""
    found: dict[str, Peer] = {"slimboard": lambda points: find_frontier(points, ["min"] * points.shape[1])}
    if importlib.util.find_spec("moocore"):
        import moocore

        found["moocore"] = lambda points: moocore.is_nondominated(points, keep_weakly=True)
    if importlib.util.find_spec("paretoset"):
        import paretoset

        found["paretoset"] = lambda points: paretoset.paretoset(points, distinct=False, use_numba=False)
    return found


def seconds(peer: Peer, points: Points) -> float:
    """Median of a few calls; of one where that takes long."""
    times: list[float] = []
    while len(times) < ROUNDS and sum(times) < 10:
        start = time.perf_counter()
        peer(points)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def expected_seconds(peer: Peer, points: Points) -> float:
    """What a way that compares every pair would take, from a twentieth of the points."""
    start = time.perf_counter()
    peer(points[: len(points) // 20])
    return (time.perf_counter() - start) * 20**2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    n = parser.parse_args().points
    print(f"{n:,} points, 3 axes, NumPy {np.__version__}")
    print(f"{'points':14}{'on frontier':>12}{'by':>12}{'seconds':>10}{'ratio to ours':>15}{'same':>6}")
    for name, points in clouds(n).items():
        expected = find_frontier(points, ["min"] * 3)
        ours = 0.0
        for label, peer in peers().items():
            expensive = expected_seconds(peer, points)
            if expensive > PATIENCE_SECONDS:
                print(f"{name:14}{expected.sum():>12,}{label:>12}     left out: about {expensive:,.0f} s")
                continue
            taken = seconds(peer, points)
            ours = ours or taken
            same = "yes" if np.array_equal(peer(points), expected) else "NO"
            print(f"{name:14}{expected.sum():>12,}{label:>12}{taken:>10.3f}{taken / ours:>15.2f}{same:>6}")


if __name__ == "__main__":
    main()
