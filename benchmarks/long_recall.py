"""What sparse attention and recurrences find again over a distance: `builtin:long-recall` beside full attention.

    python -m benchmarks.long_recall [--parts reach copy recall] [--seeds 3] [--save]

`reach`: a bidirectional classifier reads its class from a token in front and names the one value that stands among
filler, near that token or in the middle of the text, farther than the windows of all blocks reach together. `copy`: a
decoder repeats symbols after a stretch of filler. `recall`: it answers keys with their values instead; its embeddings
begin larger than GPT-2's, and the head is not tied to them, with which two blocks learn whose value is whose in far
fewer updates. Every arm is a recipe that runs through the product's own pipeline, from the same seeds with as many
updates. What is done stays in --folder, and a second call goes on there.

`recall` is trained only where asked for: a training takes two minutes on one core, RWKV's five and Mamba's twenty.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.sparsity.outcomes import keep_in, outcome
from core.spec.model import RunSpec

RESULTS = Path(__file__).parent / "results"
Steps = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """A model, its tasks by name, the steps before the training by arm, and what of the model is an arm's own."""

    model: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    arms: dict[str, Steps]
    steps: int
    batch_size: int
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    models: dict[str, dict[str, Any]] = field(default_factory=dict)


DECODERS: dict[str, Steps] = {
    "full": [],
    "sliding_window": [{"sliding_window": {"window": 20}}],
    "block_local": [{"block_local": {"block": 16}}],
    "retnet": [{"retnet": {}}],
    "linear_attention": [{"linear_attention": {}}],
    "mamba": [{"mamba": {}}],
    "rwkv": [{"rwkv": {}}],
}
GPT_2 = "full, GPT-2's embeddings"
PARTS = {
    "reach": Part(
        model={"source": "builtin:encoder", "pooling": "cls", "positions": "rotary"},
        tasks={
            "near": {"variant": "classify", "length": 128, "pairs": 1},
            "in the middle": {"variant": "classify", "length": 128, "pairs": 1, "distance": 62},
        },
        arms={
            "full": [],
            "sliding_window": [{"sliding_window": {"window": 12}}],
            "sliding_window, 1 global": [{"sliding_window": {"window": 12, "global_tokens": 1}}],
            "bigbird": [{"bigbird": {"block": 8, "random_blocks": 1}}],
            "etc": [{"etc": {"radius": 11, "global_tokens": 8}}],
        },
        steps=400,
        batch_size=32,
    ),
    "copy": Part(
        model={"source": "builtin:gpt", "positions": "rotary"},
        tasks={
            "within the window": {"variant": "copy", "length": 64, "pairs": 8, "distance": 0},
            "beyond it": {"variant": "copy", "length": 64, "pairs": 8, "distance": 40},
        },
        arms=DECODERS,
        steps=400,
        batch_size=64,
    ),
    "recall": Part(
        model={"source": "builtin:gpt", "positions": "learned", "embedding_std": 0.5, "tied": False},
        tasks={
            "within the window": {"length": 64, "pairs": 4, "vocabulary": 8, "distance": 0},
            "beyond it": {"length": 64, "pairs": 4, "vocabulary": 8, "distance": 40},
        },
        arms={GPT_2: [], **DECODERS},
        steps=2500,
        batch_size=32,
        learning_rate=1e-3,
        schedule="constant",
        models={GPT_2: {"embedding_std": None, "tied": True}},
    ),
}


def spec_of(part: Part, task: str, arm: str, seed: int, arguments: argparse.Namespace) -> RunSpec:
    """The run of an arm on a task."""
    size = {"dim": arguments.dim, "depth": arguments.depth, "heads": arguments.heads}
    steps, rate = arguments.steps or part.steps, arguments.learning_rate or part.learning_rate
    train = {"steps": steps, "batch_size": part.batch_size, "learning_rate": rate, "schedule": part.schedule}
    return RunSpec.parse(
        {
            "model": {**part.model, **size, **part.models.get(arm, {})},
            "task": {"source": "builtin:long-recall", **part.tasks[task]},
            "seed": seed,
            "recipe": [*part.arms[arm], {"train": {**train, "evaluations": 0}}],
        }
    )


def table(name: str, arguments: argparse.Namespace) -> list[str]:
    """A row an arm: its accuracy on each task, over the seeds."""
    part = PARTS[name]
    steps = arguments.steps or part.steps
    size = f"width {arguments.dim}, {arguments.depth} blocks, {steps} updates of {part.batch_size} sequences"
    lines = [f"{name}: {size}, {arguments.seeds} seeds; accuracy in %, mean (least to most)"]
    lines.append(f"{part.model['source']:28}" + "".join(f"{task:>28}" for task in part.tasks))
    for arm in [arm for arm in part.arms if not arguments.arms or arm in arguments.arms]:
        line = f"{arm:28}"
        for task in part.tasks:
            specs = [spec_of(part, task, arm, seed, arguments) for seed in range(arguments.seeds)]
            scores = [outcome(spec, arguments.folder, arguments.device).score for spec in specs]
            line += f"{statistics.fmean(scores):12.1f} ({min(scores):5.1f} to {max(scores):5.1f})"
        lines.append(line)
        print(line, flush=True)
    return lines


def main() -> None:
    """Train what is not trained yet, print the tables, and keep them with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["reach", "copy"])
    parser.add_argument("--arms", nargs="+", help="only these of each part's arms")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of every training; each part has its own")
    parser.add_argument("--learning-rate", type=float, help="of every training; each part has its own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-long-recall")
    parser.add_argument("--save", action="store_true", help="also write long_recall_<part>.txt into benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_in(arguments.folder)
    for name in arguments.parts:
        lines = [*table(name, arguments), f"torch {torch.__version__}, {arguments.device}"]
        print("\n".join(lines), flush=True)
        if arguments.save:
            (RESULTS / f"long_recall_{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
