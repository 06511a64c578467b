"""Channel permutations for N:M: how good, how fast, and how soon for a large matrix.

    python -m benchmarks.channel_permutation [--parts seeds speed large] [--large 4096x1024 1024x4096] [--save]

seeds: the protocol of Pool & Yu's ablation script, uniform matrices of seeds 0-24; mean efficacy (0 % = default order,
100 % = row-wise pruning) ± standard deviation over seeds, beside that of the authors' control flow. How many of the 25
optima of 16 columns are found is told against an exhaustive search over 2,627,625 permutations.
speed: a whole search beside one that walks alike but scores each canonical permutation by pruning it.
large: efficacy of 2:4 against seconds (rows x columns), to where nothing improves any more.
All on one thread, unless --threads asks for more: on a machine with other work, waiting for them costs far more.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.algorithms.permutation import FoundPermutation, efficacy, find_permutation, kept_sum, row_wise_sum
from core.algorithms.permutation.arrangement import Arrangement
from core.algorithms.permutation.canonical import canonical_permutations
from core.algorithms.permutation.hill_climbing import Moves, climb_hill
from core.algorithms.permutation.stripe_groups import StripeGroups
from core.algorithms.permutation.stripe_pairs import StripePairs
from core.algorithms.permutation.stripe_triples import StripeTriples

RESULT = Path(__file__).parent / "results" / "channel_permutation.txt"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "channel-permutation.png"
SEEDS = range(25)
WIDE, NARROW = (64, 128), (32, 16)  # rows, columns

# strategy, settings, then of the reference: efficacy of WIDE and NARROW, optima found of NARROW
ROWS: list[tuple[str, dict, float | None, float | None, int | None]] = [
    ("greedy swaps", {"strategy": "greedy_swap", "escapes": 0}, 46.4, 52.0, 3),
    ("greedy swaps + BR(100)", {"strategy": "greedy_swap", "escapes": 100}, 47.1, 54.8, 11),
    ("greedy swaps + BR(1000)", {"strategy": "greedy_swap", "escapes": 1000}, None, 54.8, 11),
    ("OSG(2)", {"width": 2, "escapes": 0}, 47.7, 53.4, 7),
    ("OSG(2) + BR(100)", {"width": 2, "escapes": 100}, 48.1, 56.0, 15),
    ("OSG(2) + BR(1000)", {"width": 2, "escapes": 1000}, None, 56.6, 18),
    ("OSG(3)", {"width": 3, "escapes": 0}, None, 56.4, 17),
    ("OSG(3) + BR(100)", {"width": 3, "escapes": 100}, None, 56.8, 24),
]


def uniform(seed: int, shape: tuple[int, int]) -> Tensor:
    """The reference's matrices."""
    return torch.from_numpy(np.random.RandomState(seed).rand(*shape))


def search(matrix: Tensor, seed: int = 0, **settings) -> FoundPermutation:
    return find_permutation(matrix, generator=torch.Generator().manual_seed(seed), **settings)


def optimum(matrix: Tensor) -> float:
    """What the best of all orders of 16 columns keeps: every stripe's sum once, by the bits of its columns."""
    sums = torch.zeros(2**16, dtype=torch.float64)
    for columns in combinations(range(16), 4):
        sums[sum(1 << column for column in columns)] = kept_sum(matrix[:, list(columns)], 2, 4)
    return max(
        float(sums[(1 << some.long()).view(-1, 4, 4).sum(dim=2)].sum(dim=1).max())
        for some in canonical_permutations(16, 4).split(2**17)
    )


def exhaustive(optima: list[float]) -> str:
    found = []
    for seed, kept in zip(SEEDS, optima, strict=True):
        matrix = uniform(seed, NARROW)
        found.append(efficacy(kept_sum(matrix, 2, 4), kept, row_wise_sum(matrix, 2, 4)))
    return f"{'exhaustive':25}{'':34}{56.9:8.1f}{spread(found)}{25:6d}{25:5d}"


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):8.2f} ±{statistics.pstdev(values):5.2f}"


def cells(settings: dict, reference: float | None, shape: tuple[int, int]) -> tuple[str, bool, list[FoundPermutation]]:
    """The reference's mean, ours, seconds of a search, whether ours is not below, and the 25 answers."""
    if reference is None:
        return " " * 34, True, []
    found = [search(uniform(seed, shape), seed, **settings) for seed in SEEDS]
    values = [answer.efficacy for answer in found]
    seconds = statistics.mean(answer.seconds for answer in found)
    reached = round(statistics.mean(values), 1) >= reference
    return f"{reference:8.1f}{spread(values)}{seconds:9.3f} s", reached, found


def seeds() -> str:
    """Mean efficacy of each strategy beside the reference's."""
    head = f"{'':25}{'64 x 128: ref.':>14}{'ours':>6}{'a search':>14}{'32 x 16: ref.':>14}{'ours':>6}"
    lines = [f"{head}{'a search':>14}{'optima: ref.':>14}{'ours':>5}  not below"]
    optima = [optimum(uniform(seed, NARROW)) for seed in SEEDS]
    for name, settings, wide, narrow, reference in ROWS:
        of_wide, wide_reached, _ = cells(settings, wide, WIDE)
        of_narrow, narrow_reached, found = cells(settings, narrow, NARROW)
        best = sum(answer.kept_after > kept - 1e-6 for answer, kept in zip(found, optima, strict=True))
        reached = "yes" if wide_reached and narrow_reached else "no"
        lines.append(f"{name:25}{of_wide}{of_narrow}{reference:6d}{best:5d}  {reached}")
        print(lines[-1], flush=True)
    return "\n".join([*lines, exhaustive(optima)])


def scored_by_pruning(kind: type[StripeGroups]) -> type:
    """The same moves, each canonical permutation of a window scored by permuting its columns and pruning them."""

    class Pruning(kind):
        def refresh(self, touched: Tensor, report: Callable[[], None]) -> None:
            made, ranking, changed = self.arrangement, self.ranking, set(touched.tolist())
            ranking.forget(touched)
            for window in combinations(range(made.n_stripes), ranking.width):
                if changed.isdisjoint(window):
                    continue
                places = made.places(torch.tensor([window]))[0]
                columns = made.columns[places].t()  # [K, w * m]
                kept = [pruned_sum(columns[:, order], made.n, made.m) for order in ranking.orders]
                choice = max(range(len(kept)), key=kept.__getitem__)
                ranking.gains[window] = kept[choice] - kept[0]
                ranking.choices[window] = choice

    return Pruning


def pruned_sum(matrix: Tensor, n: int, m: int) -> float:
    return float(matrix.unflatten(1, (-1, m)).topk(n, dim=2).values.sum())


def walk(matrix: Tensor, kind: Callable[[Arrangement], Moves]) -> tuple[float, float]:
    """What a search without regressions keeps, and its seconds."""
    start = time.perf_counter()
    arrangement = Arrangement(matrix, 2, 4)
    climb_hill(kind(arrangement), 0, torch.Generator(), lambda done, kept: None)
    return arrangement.kept, time.perf_counter() - start


def speed() -> str:
    """Ours, the naive one, and their ratio; ours before and after it, the median taken."""
    lines = [f"{'':34}{'by pruning':>12}{'tables':>10}{'ratio':>8}  same result"]
    for kind, width, shape in ((StripePairs, 2, WIDE), (StripePairs, 2, (256, 128)), (StripeTriples, 3, NARROW)):
        matrix = uniform(0, shape)
        walk(matrix, kind)  # makes the list of canonical permutations
        before = [walk(matrix, kind) for _ in range(5)]
        kept, naive = walk(matrix, scored_by_pruning(kind))
        after = [walk(matrix, kind) for _ in range(5)]
        ours = statistics.median(seconds for _, seconds in before + after)
        same = "yes" if abs(kept - before[0][0]) < 1e-5 * kept else "no"
        name = f"OSG({width}), {shape[0]} rows x {shape[1]} columns"
        lines.append(f"{name:34}{naive:10.2f} s{ours:8.3f} s{naive / ours:7.0f}×  {same}")
    return "\n".join(lines)


def curve(rows: int, columns: int, device: str) -> tuple[str, list[dict]]:
    """Efficacy against seconds of one large matrix."""
    matrix = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)).to(device)
    found = search(matrix, escapes=0)
    way = found.upper_bound - found.kept_before
    points = [(seconds, 100 * (kept - found.kept_before) / way) for seconds, kept in found.curve]
    enough = next(seconds for seconds, reached in points if reached >= 0.9 * found.efficacy)
    shape = f"{rows} x {columns}"
    lines = [f"{shape}: {found.efficacy:.2f} % in {found.seconds:.1f} s, nine tenths of it after {enough:.1f} s"]
    for share in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0):
        seconds, reached = next(point for point in points if point[1] >= share * found.efficacy * (1 - 1e-5))
        lines.append(f"  {seconds:7.1f} s {reached:6.2f} % {share:6.0%} of it")
    return "\n".join(lines), [{"matrix": shape, "seconds": s, "efficacy": e} for s, e in points]


def large(shapes: list[str], device: str) -> tuple[str, list[dict]]:
    """The curves of all shapes, as text and as points."""
    found = []
    for shape in shapes:
        found.append(curve(*map(int, shape.split("x")), device))
        print(found[-1][0], flush=True)
    return "\n".join(text for text, _ in found), [point for _, points in found for point in points]


def draw(points: list[dict]) -> None:
    """The curves, with the minute that they are asked to keep."""
    import altair as alt

    lines = alt.Chart(alt.Data(values=points)).mark_line(interpolate="step-after")
    lines = lines.encode(
        x=alt.X("seconds:Q", title="Seconds"),
        y=alt.Y("efficacy:Q", title="Efficacy (%)"),
        color=alt.Color("matrix:N", title="Rows x columns", scale=alt.Scale(range=["#0072B2", "#D55E00"])),
    )
    minute = alt.Chart(alt.Data(values=[{"seconds": 60}])).mark_rule(strokeDash=[4, 4]).encode(x="seconds:Q")
    (lines + minute).properties(width=560, height=300, title="2:4 by windows of two stripes").save(PICTURE, ppi=144)


def conditions(device: str) -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    cpu = names[0] if names else platform.machine()
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    return f"{cpu}, {load}, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}"


def main() -> None:
    """Run the parts, print their tables, and keep them with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["seeds", "speed", "large"], default=["speed", "seeds", "large"])
    parser.add_argument("--large", nargs="+", default=["4096x1024", "1024x4096"], help="rows x columns")
    parser.add_argument("--device", default="cpu", help="of the large matrices")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help=f"write the tables to {RESULT.name}, the curve to docs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tables = [conditions(arguments.device)]
    if "speed" in arguments.parts:
        tables.append(speed())
        print(tables[-1], flush=True)
    if "seeds" in arguments.parts:
        tables.append(seeds())
    if "large" in arguments.parts:
        text, points = large(arguments.large, arguments.device)
        tables.append(text)
        if arguments.save:
            draw(points)
    if arguments.save:
        RESULT.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
