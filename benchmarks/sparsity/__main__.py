"""Weight sparsity compared: `python -m benchmarks.sparsity [--groups ...] [--seeds 5] [--scale 1] [--device gpu]`.

Every arm is a recipe that runs through the product's own pipeline; equal prefixes are trained once. Two processes of
one thread each take a vehicle and a seed at a time. What is done stays in --folder, and a second call goes on there.
The defaults take less than an hour on 2 cores; --scale lengthens every training.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from benchmarks.sparsity.arms import CAUSES, GROUPS, Claim
from benchmarks.sparsity.judge import judge
from benchmarks.sparsity.outcomes import Outcome, keep_in, outcome, spec_of
from benchmarks.sparsity.vehicles import VEHICLES
from core.errors import SpecError, TechniqueFailure

RESULTS = Path(__file__).parents[1] / "results" / "sparsity"
Outcomes = dict[tuple[str, str, str], dict[int, Outcome]]  # (group, vehicle, arm) -> seed -> outcome


def main() -> None:
    """Carry out what was asked for, and print a table a group and vehicle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    compared = [name for name in GROUPS if name not in CAUSES]
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=compared)
    parser.add_argument("--vehicles", nargs="+", help="only these of each group's vehicles")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the updates of every training")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-sparsity")
    parser.add_argument("--save", action="store_true", help="also write each group into benchmarks/results/sparsity")
    arguments = parser.parse_args()
    keep_in(arguments.folder)
    started = time.monotonic()
    outcomes = carry_out(arguments)
    head = f"{arguments.seeds} seeds, updates times {arguments.scale:g}, {arguments.device}, torch {torch.__version__}"
    for name in arguments.groups:
        table = "\n".join([head, *report(name, outcomes)])
        print(table)
        if arguments.save:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.txt").write_text(table + "\n")
    print(f"\n{(time.monotonic() - started) / 60:.0f} minutes in this call")


def carry_out(arguments: argparse.Namespace) -> Outcomes:
    """All arms of all groups: a vehicle and a seed is one piece of work, so that a prefix is trained once."""
    outcomes: Outcomes = defaultdict(dict)
    vehicles = {v for name in arguments.groups for v in GROUPS[name]().vehicles}
    wanted = sorted(vehicles & set(arguments.vehicles or vehicles))
    for vehicle in wanted:
        VEHICLES[vehicle].source(arguments.folder)  # writes its files before two processes would
    pieces = [(vehicle, seed) for seed in range(arguments.seeds) for vehicle in wanted]
    with ProcessPoolExecutor(arguments.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {
            pool.submit(piece, v, s, arguments.groups, arguments.folder, arguments.scale, arguments.device): (v, s)
            for v, s in pieces
        }
        for done in as_completed(futures):
            vehicle, seed = futures[done]
            for (group, arm), result in done.result().items():
                outcomes[group, vehicle, arm][seed] = result
            print(f"{vehicle}, seed {seed}: done", flush=True)
    return outcomes


def piece(
    vehicle: str, seed: int, groups: list[str], folder: Path, scale: float, device: str
) -> dict[tuple[str, str], Outcome]:
    """The outcomes of a vehicle and seed by group and arm; what cannot be carried out is said and left out."""
    results = {}
    for name in groups:
        group = GROUPS[name]()
        for arm, recipe in group.arms.items() if vehicle in group.vehicles else ():
            try:
                results[name, arm] = outcome(spec_of(vehicle, recipe, seed, folder, scale), folder, device)
            except (SpecError, TechniqueFailure) as error:
                print(f"{vehicle}, seed {seed}, {arm}: left out: {error}", flush=True)
    return results


def report(name: str, outcomes: Outcomes) -> list[str]:
    """The tables of a group: each arm's size and score, then what may be said of the expected order."""
    group = GROUPS[name]()
    lines = []
    for vehicle in group.vehicles:
        found = {arm: outcomes[name, vehicle, arm] for arm in group.arms if outcomes.get((name, vehicle, arm))}
        if not found:
            continue
        lines += [f"\n## {name} on {vehicle}", f"{'arm':28}{'bytes':>10}{'score':>10}{'± seeds':>9}{'loss':>9}"]
        for arm, seeds in found.items():
            scores = [result.score for result in seeds.values()]
            loss = statistics.fmean(float(result.losses.mean()) for result in seeds.values())
            spread = f"{statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
            size = statistics.median(result.size for result in seeds.values())
            lines.append(f"{arm:28}{size:>10,.0f}{statistics.fmean(scores):>10.3f}{spread:>9}{loss:>9.4f}")
        lines += [f"{'expected':54}{'loss gained':>12}{'95 % interval':>20}{'p':>9}  seeds"]
        lines += [_judged(c, found) for c in group.claims if c.better in found and c.worse in found]
    return lines


def _judged(claim: Claim, found: dict[str, dict[int, Outcome]]) -> str:
    seeds = sorted(found[claim.better].keys() & found[claim.worse].keys())
    better, worse = ([found[arm][seed].losses for seed in seeds] for arm in (claim.better, claim.worse))
    verdict = judge(better, worse)
    interval = f"{verdict.low:+.4f} to {verdict.high:+.4f}"
    name = f"{claim.better} < {claim.worse}"
    sure = f"{verdict.seeds_for}/{verdict.n_seeds} {verdict.words}"
    return f"{name:54}{verdict.difference:>+12.4f}{interval:>20}{verdict.p_value:>9.1g}  {sure}"


if __name__ == "__main__":
    main()
