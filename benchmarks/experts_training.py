"""Mixtures of experts trained: what the balancing losses do, and what experts buy at equal compute.

    python benchmarks/experts_training.py --parts balance     # the ablation of Shazeer et al. (2017), table 6
    python benchmarks/experts_training.py --parts language    # test loss beside a dense model at equal MACs a token

Both train `builtin:gpt` on `builtin:python-docs`, all arms from the same seeds with the same updates on the same
batches.

`balance` reports the test score and, over test windows, how unevenly experts are used: the coefficients of variation of
importance (summed gates) and load (tokens), and the busiest expert's load in times of the mean. Without losses experts
should collapse onto few; with either loss they should not.

`language` gives experts half the width where a token meets two of them, so that all arms multiply as much a token, the
routers aside; both are printed. Differences are of test loss in nats a byte: paired over windows within a seed, and a
paired t-test over seeds.
"""

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose names would hide others' (queue)
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import os
import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.sparsity.judge import judge
from core import models, tasks
from core.context import Context
from core.engine.recording import MemoryRecord
from core.measure import compute
from core.measure.score import evaluate
from core.nn.experts.balance import squared_variation
from core.nn.experts.mixture import MixtureOfExperts
from core.spec.model import ModelSpec, StepSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import Task, logits_of
from core.technique import OneShot
from core.techniques.catalogue import technique

RESULTS = Path(__file__).parent / "results"
TEST_WINDOWS = 400

LOSSES = [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.1), (0.01, 0.01), (1.0, 1.0)]
BALANCE = {
    f"moe, w_imp {a:g}, w_load {b:g}": {"moe": {"importance_weight": a, "load_weight": b}} for a, b in LOSSES
} | {f"switch, alpha {alpha:g}": {"switch": {"balance_weight": alpha}} for alpha in (0.0, 0.01)}
LANGUAGE: dict[str, dict[str, dict[str, Any]] | None] = {
    "dense": None,
    "switch, 1 of 8": {"switch": {"experts": 8}},
    "switch, 1 of 32": {"switch": {"experts": 32}},
    "glam, 2 of 8, half as wide": {"glam": {"experts": 8, "expert_width": 0.5}},
    "moe, 2 of 8, half as wide": {"moe": {"experts": 8, "expert_width": 0.5}},
}


class Arm(NamedTuple):
    """One trained model."""

    model: torch.nn.Module
    losses: Tensor  # nats a byte of each test window
    macs: int  # of a token
    parameters: int
    active: int
    seconds: float
    dropped: float  # % of the choices in the last tenth of the training


def trained(step: dict[str, dict[str, Any]] | None, seed: int, task: Task, arguments: argparse.Namespace) -> Arm:
    """A fresh model with this step, trained."""
    settings = {"dim": arguments.width, "depth": arguments.depth, "length": arguments.length, "positions": "rotary"}
    spec = ModelSpec.model_validate({"source": "builtin:gpt", **settings})
    loaded = models.load(spec, task, torch.Generator().manual_seed(seed))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    record = MemoryRecord()
    context = Context(torch.device("cpu"), task, str(seed), record, resolve=lambda reference: loaded.module)
    if step is not None:
        _apply(StepSpec.model_validate(step), subject, context)
    train = {"steps": arguments.steps, "batch_size": arguments.batch, "evaluations": 0, "learning_rate": 2e-3}
    start = time.monotonic()
    _apply(StepSpec.model_validate({"train": train}), subject, context)
    seconds = time.monotonic() - start
    examples = evaluate(subject.model, task, "test", device=context.device, limit=TEST_WINDOWS)
    counted = compute.count(subject.model, _probe(task), per_token=True)
    dropped = next((v for name, v in record.curves.items() if name.endswith("dropped choices (%)")), [(0, 0.0)])
    last = statistics.fmean(value for _, value in dropped[-max(1, len(dropped) // 10) :])
    losses = examples["nats"] / examples["characters"]
    sizes = counted.parameters, counted.active_parameters
    return Arm(subject.model, losses, counted.macs, *sizes, seconds, last)


def _apply(spec: StepSpec, subject: Subject, context: Context) -> None:
    bound = technique(spec, "recipe[0]")
    assert isinstance(bound, OneShot)
    bound.check(subject)
    bound.apply(subject, context)


def _probe(task: Task) -> dict[str, Tensor]:
    return task.split("test").batch(torch.arange(1))


@torch.no_grad()
def usage(model: torch.nn.Module, task: Task) -> tuple[float, float, float]:
    """CV of importance and of load, and max/mean load, over test windows; the mean over layers."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, MixtureOfExperts):
            _watch(module, seen.setdefault(name, []))
    split = task.split("test")
    for start in range(0, 64, 16):
        logits_of(model, split.batch(torch.arange(start, start + 16)))
    rows = []
    for batches in seen.values():
        importance, load = (torch.stack(parts).sum(0) for parts in zip(*batches, strict=True))
        variations = [squared_variation(x).sqrt().item() for x in (importance, load)]
        rows.append((*variations, (load.max() / load.mean()).item()))
    return tuple(statistics.fmean(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _watch(module: MixtureOfExperts, batches: list[tuple[Tensor, Tensor]]) -> None:
    route = module.route

    def watched(x: Tensor, valid: Tensor) -> Any:
        routing = route(x, valid)
        chosen = routing.experts.flatten()
        importance = torch.zeros(module.n_experts).index_add(0, chosen, routing.gates.flatten())
        batches.append((importance, torch.bincount(chosen, minlength=module.n_experts).float()))
        return routing

    module.route = watched  # type: ignore[method-assign]


def balance(task: Task, arguments: argparse.Namespace) -> list[str]:
    """A row for each pair of weights."""
    lines = [f"{'16 experts':30}{'nats a byte':>12}{'CV importance':>15}{'CV load':>9}{'max/mean':>10}"]
    print(lines[0], flush=True)
    for name, step in BALANCE.items():
        if arguments.arms and name not in arguments.arms:
            continue
        step = {key: {**settings, "experts": 16} for key, settings in step.items()}
        arms = [trained(step, seed, task, arguments) for seed in range(arguments.seeds)]
        loss = statistics.fmean(float(arm.losses.mean()) for arm in arms)
        found = [statistics.fmean(column) for column in zip(*(usage(arm.model, task) for arm in arms), strict=True)]
        lines.append(f"{name:30}{loss:12.4f}{found[0]:15.2f}{found[1]:9.2f}{found[2]:10.2f}")
        print(lines[-1], flush=True)
    return lines


def language(task: Task, arguments: argparse.Namespace) -> list[str]:
    """A row for each arm, then its difference from the dense one."""
    head = f"{'':30}{'nats a byte':>12}{'parameters':>12}{'active':>10}{'MACs':>11}{'seconds':>9}{'dropped':>9}"
    lines, losses = [head], {}
    print(head, flush=True)
    for name, step in LANGUAGE.items():
        if arguments.arms and name not in (*arguments.arms, "dense"):
            continue
        arms = [trained(step, seed, task, arguments) for seed in range(arguments.seeds)]
        losses[name] = [arm.losses for arm in arms]
        loss = statistics.fmean(float(own.mean()) for own in losses[name])
        first, seconds = arms[0], statistics.median(arm.seconds for arm in arms)
        sizes = f"{first.parameters:12,}{first.active:10,}{first.macs:11,}"
        lines.append(f"{name:30}{loss:12.4f}{sizes}{seconds:9.0f}{statistics.fmean(a.dropped for a in arms):8.1f}%")
        print(lines[-1], flush=True)
    lines.append(f"{'less than dense':30}{'nats a byte':>12}{'95 % over seeds':>22}{'p':>9}")
    for name in list(losses)[1:]:
        found = judge(losses[name], losses["dense"])
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        sure = f"{found.seeds_for}/{found.n_seeds} seeds by windows, {found.words}"
        lines.append(f"{name:30}{found.difference:>+12.4f}{interval:>22}{found.p_value:>9.1g}  {sure}")
    print("\n".join(lines[-len(losses) :]), flush=True)
    return lines


PARTS = {"balance": balance, "language": language}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--arms", nargs="+", choices=[*BALANCE, *list(LANGUAGE)[1:]], help="only these")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/experts_<part>.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:python-docs", "length": arguments.length}))
    spec = ModelSpec.model_validate({"source": "builtin:gpt", "dim": arguments.width, "length": arguments.length})
    task.prepare(models.describe(spec, task).input_format)
    sizes = f"width {arguments.width}, {arguments.depth} blocks, {arguments.steps} updates of {arguments.batch} windows"
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    head = f"{sizes} of {arguments.length} bytes, {arguments.seeds} seeds, torch {torch.__version__}, {load}"
    print(head)
    for part in arguments.parts:
        lines = PARTS[part](task, arguments)
        if arguments.save:
            (RESULTS / f"experts_{part}.txt").write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    main()
