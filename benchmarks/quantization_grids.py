"""KL of quantized models to the dense one, with symmetric grids of 2^b - 1 levels and of all 2^b levels.

    python -m benchmarks.quantization_grids [--vehicles gpt llama vit] [--seeds 3] [--bits 2 3 4 8] [--save]

Trains the models of `benchmarks.sparsity` (or takes what an earlier call left in --folder), quantizes each per channel
with min-max ranges, and prints the mean KL(dense || quantized) in nats over the test examples. The first grid has the
scale max / (2^(b-1) - 1) and leaves its smallest code out, as Slimboard did before; the second has the scale
max / (2^(b-1) - 0.5). The ratio is the geometric mean over seeds.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.quantization.trial import load_dense, refuse_teacher
from benchmarks.sparsity.arms import DENSE
from benchmarks.sparsity.outcomes import execution_of, keep_in, spec_of
from benchmarks.sparsity.vehicles import VEHICLES
from core.algorithms.quantization_grids import RANGE_ESTIMATORS, Grid
from core.context import Context
from core.engine.pipeline import Execution
from core.engine.recording import MemoryRecord
from core.models.batches import place
from core.spec.model import StepSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import OneShot
from core.techniques.catalogue import technique

RESULT = Path(__file__).parent / "results" / "quantization_grids.txt"
EXAMPLES = 512  # of the test split
BATCH = 128


class NarrowGrid(Grid):
    """A symmetric grid that leaves its smallest code out."""

    def quantize(self, x: Tensor) -> Tensor:
        """Codes 1..2**bits - 1."""
        return super().quantize(x).clamp(min=1)


def narrow_min_max(x: Tensor, bits: int, symmetric: bool, dtype: torch.dtype = torch.float32) -> Grid:
    """The grid of 2**bits - 1 levels for the whole range of each row, as it was chosen before."""
    assert symmetric, "affine grids have not changed"
    scale = x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale).to(dtype).float()
    return NarrowGrid(scale, torch.full_like(scale, 2 ** (bits - 1)), bits)


GRIDS = {"2^b - 1": narrow_min_max, "2^b": RANGE_ESTIMATORS["min-max"]}


def arms(bits: int) -> dict[str, dict[str, Any]]:
    """The steps that are compared; second order without pruning is GPTQ."""
    return {
        "rtn": {"rtn": {"bits": bits}},
        "second order": {"sparsegpt": {"bits": bits, "sparsity": 0}},
        "sparsegpt 50 %": {"sparsegpt": {"bits": bits, "sparsity": 0.5}},
    }


def kl_of(vehicle: str, seed: int, bits: list[int], folder: Path) -> dict[tuple[str, int, str], float]:
    """Mean KL to the dense model in nats by arm, bits and grid."""
    execution = execution_of(spec_of(vehicle, DENSE, seed, folder, 1.0), folder, "cpu")
    dense = list(log_probabilities(load_dense(execution).model, execution))
    found = {}
    for b in bits:
        for arm, step in arms(b).items():
            for grid, min_max in GRIDS.items():
                subject = load_dense(execution)
                with patch.dict(RANGE_ESTIMATORS, {"min-max": min_max}):
                    quantize(subject, step, seed)
                found[arm, b, grid] = mean_kl(dense, log_probabilities(subject.model, execution))
    return found


def quantize(subject: Subject, step: dict[str, Any], seed: int) -> None:
    """Apply a step of a recipe."""
    bound = technique(StepSpec.model_validate(step), "step")
    assert isinstance(bound, OneShot)
    bound.check(subject)
    bound.apply(subject, Context(torch.device("cpu"), subject.task, f"{seed}", MemoryRecord(), refuse_teacher))


@torch.inference_mode()
def log_probabilities(model: nn.Module, execution: Execution) -> Iterator[Tensor]:
    """Those of each batch of test examples [predictions, classes]; the tasks here have no padding."""
    examples = execution.task.split("test")
    model.eval()
    for indices in torch.arange(min(EXAMPLES, len(examples))).split(BATCH):
        logits = logits_of(model, place(examples.batch(indices), execution.device, torch.float32))
        yield logits.flatten(0, -2).double().log_softmax(-1)


def mean_kl(reference: list[Tensor], other: Iterator[Tensor]) -> float:
    """Mean KL(reference || other) over all predictions."""
    parts = [(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, other, strict=True)]
    return float(torch.cat(parts).mean())


def table(vehicle: str, bits: list[int], seeds: list[dict[tuple[str, int, str], float]]) -> list[str]:
    """A line for each arm and number of bits: mean KL with each grid, their ratio, and for how many seeds it fell."""
    old, new = GRIDS
    head = f"{'arm':16}{'bits':>5}{old + ' levels':>18}{new + ' levels':>14}{'ratio':>8}{'lower in':>10}"
    lines = [f"\n## {vehicle}", head]
    for arm in arms(bits[0]):
        for b in bits:
            pairs = [(found[arm, b, old], found[arm, b, new]) for found in seeds]
            before, after = (statistics.fmean(column) for column in zip(*pairs, strict=True))
            ratio = math.exp(statistics.fmean(math.log(x / y) for x, y in pairs))
            lower = f"{sum(y < x for x, y in pairs)}/{len(pairs)}"
            lines.append(f"{arm:16}{b:>5}{before:>18.6f}{after:>14.6f}{ratio:>8.2f}{lower:>10}")
    return lines


def main() -> None:
    """Print a table for each vehicle, and keep them with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", nargs="+", choices=["gpt", "llama", "vit"], default=["gpt", "llama", "vit"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 3, 4, 8])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-sparsity")
    parser.add_argument("--save", action="store_true", help=f"also write the tables to {RESULT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_in(arguments.folder)
    started = time.monotonic()
    lines = [
        f"KL(dense || quantized) in nats, {EXAMPLES} test examples, {arguments.seeds} seeds, torch {torch.__version__}",
        "ratio: KL with 2^b - 1 levels over KL with 2^b levels",
    ]
    for vehicle in arguments.vehicles:
        VEHICLES[vehicle].source(arguments.folder)
        seeds = [kl_of(vehicle, seed, arguments.bits, arguments.folder) for seed in range(arguments.seeds)]
        lines += table(vehicle, arguments.bits, seeds)
        print("\n".join(lines[-2 - 3 * len(arguments.bits) :]), flush=True)
    if arguments.save:
        RESULT.write_text("\n".join(lines) + "\n")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
