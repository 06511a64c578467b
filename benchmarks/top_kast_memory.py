"""Peak memory and processor time of a training under Top-KAST, its backward dense and sparse, beside a dense one.

    python -m benchmarks.top_kast_memory [--dim 192] [--depth 8] [--batch 16] [--optimizer adamw] [--save]

Each row is a fresh process that builds a Vision Transformer with random weights and makes updates on the digits, some
of them with a new choice of the sets. The peak is what the process holds above an idle one: weights, gradients,
optimizer state, sets and activations. Beside it is what the sparse layers' weights, gradients, optimizer state and
sets come to by count, in bytes a weight. The time is that of one update with a new choice and one without, halved.
"""

import argparse
import itertools
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core import models, tasks
from core.algorithms.masks import prunable_weights
from core.context import Context
from core.engine.recording import MemoryRecord
from core.fresh_process import in_fresh_process
from core.measure.peak import measure_peak
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.techniques.sparse_training.top_kast import TopKast
from core.techniques.training.train import Train

RESULT = Path(__file__).with_name("results") / "top_kast_memory.txt"
UPDATES = 3
REFRESH = 2
STATE = {"adamw": 8, "sgd": 4}  # bytes a trained weight
DENSITIES = ((0.2, 0.3), (0.1, 0.1))  # forward, extra


@dataclass(frozen=True)
class Case:
    """One training: dense without densities."""

    dim: int
    depth: int
    batch: int
    optimizer: str
    densities: tuple[float, float] | None = None
    backward: str = "dense"

    @property
    def name(self) -> str:
        """The row's name."""
        if self.densities is None:
            return "dense training"
        method = TopKast(density=self.densities[0], extra_density=self.densities[1])
        return f"top_kast {method.label()}, {self.backward} backward"

    @property
    def bytes_a_weight(self) -> float:
        """Weight, gradient, state and sets of a sparse layer."""
        state = STATE[self.optimizer]
        if self.densities is None:
            return 4 + 4 + state
        if self.backward == "dense":
            return 4 + 4 + 4 + state + 3  # the product that the graph holds; A, B and what was never active
        in_b = sum(self.densities)
        return 4 + 1 + in_b * (4 + state + 5)  # 32-bit columns and one byte for A


class Clock(MemoryRecord):
    """Notes the processor time when every update begins; waits for no other measurement of this host."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def progress(self, fraction: float, text: str) -> None:
        """Note the time."""
        self.times.append(time.process_time())


@dataclass(frozen=True)
class Outcome:
    """What a training tells of itself."""

    n_sparse: int
    seconds: float  # of all processors together, the median update


def train(case: Case) -> Outcome:
    """Build the model and make the updates."""
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:digits"}))
    settings = {"source": "builtin:vit", "dim": case.dim, "depth": case.depth, "heads": 8}
    spec = ModelSpec.model_validate(settings)
    task.prepare(models.describe(spec, task).input_format)
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    n_sparse = sum(weight.numel() for weight in prunable_weights(subject.model).values())
    methods: list[dict[str, Any]] = []
    if case.densities is not None:
        density, extra = case.densities
        method = {"density": density, "extra_density": extra, "update_every": REFRESH, "backward": case.backward}
        methods.append({"top_kast": method})
    step = Train(
        steps=UPDATES,
        batch_size=case.batch,
        optimizer=case.optimizer,
        evaluations=0,
        methods=methods,  # type: ignore[arg-type]
    )
    clock = Clock()
    context = Context(torch.device("cpu"), task, "benchmark", clock, lambda reference: subject.model)
    step.apply(subject, context)
    return Outcome(n_sparse, statistics.median(b - a for a, b in itertools.pairwise(clock.times)))


def table(cases: list[Case]) -> str:
    """Measure every case."""
    head = cases[0]
    lines = [
        f"Vision Transformer, width {head.dim}, {head.depth} blocks, batches of {head.batch}, {head.optimizer}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}",
        "",
        f"{'':40} {'peak MB':>9} {'of dense':>9} {'by count, B/weight':>19} {'of dense':>9} {'CPU ms an update':>17}",
    ]
    dense: float | None = None
    for case in cases:
        found = measure_peak(train, case)
        outcome = in_fresh_process(train, case)  # apart: taking the peak makes every allocation slow
        dense = dense or found.peak_bytes
        lines.append(
            f"{case.name:40} {found.peak_bytes / 1e6:9.0f} {found.peak_bytes / dense:9.2f} {case.bytes_a_weight:19.1f} "
            f"{case.bytes_a_weight / head.bytes_a_weight:9.2f} {1000 * outcome.seconds:17.0f}"
        )
        print(lines[-1], flush=True)
    lines.insert(1, f"{outcome.n_sparse / 1e6:.1f} M weights in its sparse layers")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", choices=list(STATE), default="adamw")
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name} too")
    arguments = parser.parse_args()
    shape = (arguments.dim, arguments.depth, arguments.batch, arguments.optimizer)
    sparse = [Case(*shape, densities, backward) for densities in DENSITIES for backward in ("dense", "sparse")]
    found = table([Case(*shape), *sparse])
    print("\n" + found)
    if arguments.save:
        RESULT.write_text(found + "\n")


if __name__ == "__main__":
    main()
