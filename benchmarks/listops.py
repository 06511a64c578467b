"""What attention patterns make of nested operations: `builtin:listops` beside full attention.

    python -m benchmarks.listops [--length 128] [--steps 1000] [--seeds 2] [--save]

A bidirectional classifier with rotary positions, mean pooling and one attention for all blocks. Every arm is a recipe
that runs through the product's own pipeline, from the same seeds with as many updates. What is done stays in --folder,
and a second call goes on there. First row: always the most frequent class.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.sparsity.outcomes import keep_in, outcome
from core.spec.model import RunSpec
from core.tasks.sources.listops import ListOps

RESULT = Path(__file__).parent / "results" / "listops.txt"
ARMS: dict[str, list[dict[str, Any]]] = {
    "full": [],
    "sliding_window": [{"sliding_window": {"window": 16}}],
    "sliding_window, 1 global": [{"sliding_window": {"window": 16, "global_tokens": 1}}],
    "bigbird": [{"bigbird": {"block": 8, "random_blocks": 1}}],
    "linear_attention": [{"linear_attention": {}}],
}


def spec_of(arm: str, seed: int, arguments: argparse.Namespace) -> RunSpec:
    """The run of an arm."""
    size = {"dim": arguments.dim, "depth": arguments.depth, "heads": arguments.heads, "positions": "rotary"}
    train = {"steps": arguments.steps, "batch_size": arguments.batch_size, "evaluations": 0}
    return RunSpec.parse(
        {
            "model": {"source": "builtin:encoder", **size},
            "task": {"source": "builtin:listops", "length": arguments.length},
            "seed": seed,
            "recipe": [*ARMS[arm], {"train": {**train, "learning_rate": arguments.learning_rate}}],
        }
    )


def table(arguments: argparse.Namespace) -> list[str]:
    """A row an arm: its accuracy over the seeds."""
    size = f"width {arguments.dim}, {arguments.depth} blocks, {arguments.steps} updates of {arguments.batch_size} texts"
    texts = f"of {arguments.length // 4 + 1} to {arguments.length - 1} tokens"
    lines = [f"{size} {texts}, {arguments.seeds} seeds; accuracy in %, mean (least to most)"]
    guess = ListOps(length=arguments.length).read("builtin:listops").guesses["the most frequent one"]
    lines.append(f"{'always the most frequent class':32}{guess:8.1f}")
    for arm in ARMS:
        specs = [spec_of(arm, seed, arguments) for seed in range(arguments.seeds)]
        scores = [outcome(spec, arguments.folder, arguments.device).score for spec in specs]
        lines.append(f"{arm:32}{statistics.fmean(scores):8.1f} ({min(scores):.1f} to {max(scores):.1f})")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Train what is not trained yet, print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-listops")
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name} into benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_in(arguments.folder)
    lines = [*table(arguments), f"torch {torch.__version__}, {arguments.device}"]
    print("\n".join(lines), flush=True)
    if arguments.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
