"""What Scaling Transformers' parts cost in quality: bits per character on Python's documentation, beside a dense model.

    python -m benchmarks.scaling_transformers_quality [--dim 128] [--depth 2] [--steps 300] [--seeds 3] [--save]

Every arm is a recipe that runs through the product's own pipeline, as many updates for each. Losses are paired with the
dense model's window by window of the test split, and the seeds' differences are tested. What is done stays in
--folder, and a second call goes on there. `quant_prob` is the share of training batches with hard masks.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sparsity.judge import judge
from benchmarks.sparsity.outcomes import Outcome, keep_in, outcome
from core.spec.model import RunSpec

RESULT = Path(__file__).parent / "results" / "scaling_transformers_quality.txt"


def arms(block_size: int) -> dict[str, list[dict[str, Any]]]:
    """Steps before the training, by arm."""

    def ffn(size: int = block_size, **settings: Any) -> dict[str, Any]:
        return {"sparse_ffn": {"block_size": size, **settings}}

    return {
        "dense": [],
        f"FF, 1 of {block_size}": [ffn()],
        "always soft in training": [ffn(quant_prob=0.0)],
        "always hard in training": [ffn(quant_prob=1.0)],
        f"FF, 1 of {block_size // 4}": [ffn(block_size // 4)],
        "QKV": [{"sparse_qkv": {}}],
        "FF+QKV+loss": [ffn(), {"sparse_qkv": {}}, {"sparse_loss": {}}],
    }


def spec_of(arguments: argparse.Namespace, steps: list[dict[str, Any]], seed: int) -> RunSpec:
    """The run of an arm and seed."""
    model = {"source": "builtin:gpt", "dim": arguments.dim, "depth": arguments.depth, "heads": arguments.heads}
    train = {"steps": arguments.steps, "batch_size": arguments.batch_size, "evaluations": 0}
    return RunSpec.parse(
        {
            "model": {**model, "tied": False, "positions": "rotary"},
            "task": {"source": "builtin:python-docs", "length": arguments.length},
            "seed": seed,
            "recipe": [*steps, {"train": {**train, "learning_rate": arguments.learning_rate}}],
        }
    )


def report(found: dict[str, list[Outcome]]) -> list[str]:
    """A row an arm: score over the seeds, size, and how much more it loses than the dense model, in nats a token."""
    lines = [
        f"{'':24}{'bits, mean (least to most)':>28}{'bytes':>12}"
        f"{'loss more':>11}{'95 % interval':>20}{'p':>9}  seeds worse"
    ]
    for arm, results in found.items():
        scores = [result.score for result in results]
        spread = f"({min(scores):.4f} to {max(scores):.4f})"
        line = f"{arm:24}{statistics.fmean(scores):>8.4f}{spread:>20}{results[0].size:>12,}"
        if arm != "dense":
            verdict = judge([r.losses for r in found["dense"]], [r.losses for r in results])
            interval = f"{verdict.low:+.4f} to {verdict.high:+.4f}"
            counted = f"{verdict.seeds_for} of {verdict.n_seeds}, better {verdict.seeds_against}"
            line += f"{verdict.difference:>+11.4f}{interval:>20}{verdict.p_value:>9.1g}  {counted}"
        lines.append(line)
    return lines


def _wanted(arm: str, asked: list[str] | None) -> bool:
    return asked is None or arm in ("dense", *asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--block-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these; the dense one is always there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-scaling-transformers")
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name} into benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_in(arguments.folder)
    started = time.monotonic()
    chosen = {arm: steps for arm, steps in arms(arguments.block_size).items() if _wanted(arm, arguments.arms)}
    found: dict[str, list[Outcome]] = {arm: [] for arm in chosen}
    for seed in range(arguments.seeds):
        for arm, steps in chosen.items():
            found[arm].append(outcome(spec_of(arguments, steps, seed), arguments.folder, arguments.device))
            print(f"seed {seed}, {arm}: {found[arm][-1].score:.4f} bits per character", flush=True)
    asked = f"dim {arguments.dim}, depth {arguments.depth}, {arguments.steps} updates of {arguments.batch_size} windows"
    lines = [f"{asked} of {arguments.length} bytes, {arguments.seeds} seeds, torch {torch.__version__}"]
    lines += [*report(found), f"{(time.monotonic() - started) / 60:.0f} minutes in this call"]
    print("\n" + "\n".join(lines))
    if arguments.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
