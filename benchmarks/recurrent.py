"""What recurrent language models cost while they generate, and what they lose, beside a Transformer of the same size.

    python -m benchmarks.recurrent [--parts generation loss] [--rows attention retnet mamba] [--save]

Generation: one token after contexts of 1k to 32k tokens; caches and states are filled directly, since how the tokens
came in changes neither their size nor the time of the next. Every round times each model at each context in turn;
ratios are medians of each round's own. Loss: language modelling on Python's documentation at equal parameters, the
same batches for all models of a seed; differences are paired over the test windows, each window's loss averaged over
the seeds. Trainings that are done lie in --folder and are not repeated. A further model is a further line of ROWS.
"""

import argparse
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core import models, tasks
from core.context import Context
from core.engine.recording import MemoryRecord
from core.measure.score import evaluate, principal
from core.nn.cache import FullCache
from core.paired_tests import paired
from core.spec.model import ModelSpec, StepSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import Task
from core.technique import OneShot
from core.techniques.catalogue import technique

RESULTS = Path(__file__).parent / "results"
REFERENCE = "attention"
STEPS_A_ROUND = 8


@dataclass(frozen=True)
class Row:
    """A model: the step that makes it from builtin:gpt, and the settings that give it the reference's parameters."""

    step: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # of builtin:gpt, laid over the part's own
    fitted: bool = False  # choose dim so, for models whose size no setting changes finely enough


ROWS = {
    REFERENCE: Row(),
    "retnet": Row({"retnet": {"value_factor": 2}}, {"ffn_ratio": 2.0}),
    "linear_attention": Row({"linear_attention": {}}),
    "mamba": Row({"mamba": {}}, {"heads": 1}, fitted=True),
    "rwkv_4": Row({"rwkv": {"version": 4, "ffn_ratio": 3.5}}),
    "rwkv_5": Row({"rwkv": {"version": 5, "ffn_ratio": 3.0}}),
    "rwkv_6": Row({"rwkv": {"version": 6, "ffn_ratio": 1.5}}),  # at width 64; wider ones have fewer than the reference
}


@dataclass(frozen=True)
class Size:
    """Of the reference's model."""

    dim: int
    depth: int
    heads: int
    length: int


def subject_of(row: Row, task: Task, size: Size, seed: int) -> Subject:
    """A row's fresh model; positions are rotary where it has any."""
    if not row.fitted:
        return _built(row, task, size, seed)
    wanted = parameters(_built(ROWS[REFERENCE], task, size, seed).model)
    widths = [replace(size, dim=dim) for dim in range(size.dim // 2, size.dim + size.dim // 8, 2)]
    return min(
        (_built(row, task, one, seed) for one in widths), key=lambda subject: abs(parameters(subject.model) - wanted)
    )


def _built(row: Row, task: Task, size: Size, seed: int) -> Subject:
    spec = ModelSpec.model_validate({"source": "builtin:gpt", "positions": "rotary", **asdict(size), **row.settings})
    task.prepare(models.describe(spec, task).input_format)
    loaded = models.load(spec, task, torch.Generator().manual_seed(seed))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    if row.step:
        made = bound(row.step)
        made.check(subject)
        made.apply(subject, context_of(subject, seed))
    return subject


def bound(step: dict[str, Any]) -> OneShot:
    """A step of a recipe as the technique."""
    made = technique(StepSpec.model_validate(step), "recipe[0]")
    assert isinstance(made, OneShot)
    return made


def context_of(subject: Subject, seed: int) -> Context:
    """The same randomness for every model of a seed."""

    def unresolved(reference: object) -> torch.nn.Module:
        raise ValueError(f"no model is named here: {reference}")

    device = next(subject.model.parameters()).device
    return Context(device, subject.task, f"recurrent {seed}", MemoryRecord(), unresolved)


def parameters(model: torch.nn.Module) -> int:
    """All of them, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def generation(arguments: argparse.Namespace) -> str:
    """Milliseconds a token, and bytes of what is kept, by context."""
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:python-docs"}))
    device = torch.device(arguments.device)
    dim, depth = arguments.generation_dim, arguments.generation_depth
    size = Size(dim, depth, heads=dim // 64, length=max(arguments.contexts) + 64)
    built = {name: subject_of(ROWS[name], task, size, 0).model.to(device).eval() for name in arguments.rows}
    times: dict[tuple[str, int], list[float]] = {}
    caches = {
        (name, context): filled(model, context, device)
        for name, model in built.items()
        for context in arguments.contexts
    }
    for index in range(arguments.rounds + 1):
        for (name, context), cache in caches.items():
            taken = milliseconds(built[name], cache, context, device)
            if index:  # the first round warms up
                times.setdefault((name, context), []).append(taken)
    labels = {name: f"{name:20}{parameters(model) / 1e6:9.2f} M" for name, model in built.items()}

    def table(title: str, values: dict[tuple[str, int], float], digits: int) -> str:
        head = f"{title:31}" + "".join(f"{f'{context // 1024}k':>9}" for context in arguments.contexts)
        rows = ["".join(f"{values[name, context]:9.{digits}f}" for context in arguments.contexts) for name in built]
        return "\n".join([head, *(label + row for label, row in zip(labels.values(), rows, strict=True))])

    def ratio(key: tuple[str, int], base: tuple[str, int]) -> float:
        return statistics.median(a / b for a, b in zip(times[base], times[key], strict=True))

    shortest, longest = arguments.contexts[0], arguments.contexts[-1]
    flat = [f"{label}{ratio((name, shortest), (name, longest)):9.2f}" for name, label in labels.items()]
    return "\n\n".join(
        [
            f"Generation: width {dim}, {depth} blocks, batch 1, float32; medians of {arguments.rounds} rounds",
            table("tokens/s", {key: 1000 / statistics.median(values) for key, values in times.items()}, 0),
            table("MB kept for the next token", {key: kept_bytes(cache) / 2**20 for key, cache in caches.items()}, 3),
            table(f"times as fast as {REFERENCE}", {key: ratio(key, (REFERENCE, key[1])) for key in times}, 2),
            f"time of a token after {longest // 1024}k by that after {shortest // 1024}k\n" + "\n".join(flat),
        ]
    )


def filled(model: Any, context: int, device: torch.device) -> Any:
    """A cache as after `context` tokens: random keys and values, or the state after a few, told that they were many."""
    cache = model.make_cache(context + 64)
    with torch.inference_mode():
        model(torch.zeros(1, 8, dtype=torch.long, device=device), cache=cache)
    for layer in cache:
        if isinstance(layer, FullCache):
            assert layer.keys is not None
            heads, width = layer.keys.shape[1], layer.keys.shape[3]
            layer.keys, layer.values = (torch.randn(1, heads, context + 64, width, device=device) for _ in range(2))
        _set_length(layer, context)
    return cache


def _set_length(kept: Any, context: int) -> None:
    for part in vars(kept).values():
        if hasattr(part, "length"):
            _set_length(part, context)
    if "length" in vars(kept):
        kept.length = context


def kept_bytes(cache: Any) -> int:
    """Bytes of all tensors that a model's cache keeps; of keys and values those of the tokens seen."""
    if isinstance(cache, Tensor):
        return cache.numel() * cache.element_size()
    if isinstance(cache, FullCache):
        assert cache.keys is not None
        assert cache.values is not None
        return sum(kept_bytes(part[:, :, : cache.length]) for part in (cache.keys, cache.values))
    parts = cache.values() if isinstance(cache, dict) else cache if isinstance(cache, list) else vars(cache).values()
    return sum(kept_bytes(part) for part in parts if not isinstance(part, (int, float, str, type(None))))


@torch.inference_mode()
def milliseconds(model: Any, cache: Any, context: int, device: torch.device) -> float:
    """Time of one token, over STEPS_A_ROUND of them after one that warms up; the context is then as long as before."""
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    model(token, cache=cache)
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS_A_ROUND):
        token = model(token, cache=cache)[:, -1:].argmax(-1)
    if device.type == "cuda":
        torch.cuda.synchronize()
    taken = 1000 * (time.perf_counter() - start) / STEPS_A_ROUND
    for layer in cache:
        _set_length(layer, context)
    return taken


def loss(arguments: argparse.Namespace) -> str:
    """Bits per character of every row, and its difference from the reference."""
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:python-docs", "length": arguments.length}))
    size = Size(arguments.dim, arguments.depth, arguments.heads, arguments.length)
    runs: dict[str, list[tuple[dict[str, Tensor], int]]] = {name: [] for name in arguments.rows}
    for seed in arguments.seeds:
        for name, found in runs.items():
            found.append(trained(name, task, size, seed, arguments))
            print(f"seed {seed}: {name} {principal(task, found[-1][0]):.3f}", flush=True)
    lines = [
        f"Language modelling: width {size.dim}, {size.depth} blocks, windows of {size.length}, {arguments.steps} "
        f"updates of {arguments.batch_size} windows, learning rate {arguments.learning_rate:g}",
        f"{'':20}{'parameters':>11}{'bits/char':>11}{f'less {REFERENCE}':>16}{'95 % interval':>20}  of each seed",
    ]
    pooled = {name: _pooled([examples for examples, _ in found]) for name, found in runs.items()}
    for name, found in runs.items():
        scores = [principal(task, examples) for examples, _ in found]
        difference = paired("bits per character", pooled[name], pooled[REFERENCE])
        interval = f"{difference.low:+.3f} .. {difference.high:+.3f}"
        line = f"{name:20}{found[0][1]:11,}{statistics.mean(scores):11.3f}{difference.delta:+16.3f}{interval:>20}  "
        lines.append(line + " ".join(f"{score:.3f}" for score in scores))
    return "\n".join(lines)


def _pooled(seeds: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Each test window's loss, averaged over the seeds."""
    nats = torch.stack([examples["nats"].double() for examples in seeds]).mean(0)
    return {"nats": nats.numpy(), "characters": seeds[0]["characters"].double().numpy()}


def trained(
    name: str, task: Task, size: Size, seed: int, arguments: argparse.Namespace
) -> tuple[dict[str, Tensor], int]:
    """Test losses of a row trained with a seed, and its number of parameters; found in the folder if done before."""
    subject = subject_of(ROWS[name], task, size, seed)
    count = parameters(subject.model)
    budget = {name: getattr(arguments, name) for name in ("steps", "batch_size", "learning_rate")}
    settings = "-".join(str(value) for value in (*asdict(size).values(), *budget.values()))
    file = arguments.folder and arguments.folder / f"{name}-{settings}-{seed}.safetensors"
    if file and file.exists():
        return load_file(file), count
    subject.model.to(arguments.device)
    bound({"train": {**budget, "evaluations": 0}}).apply(subject, context_of(subject, seed))
    examples = evaluate(subject.model, task, "test", device=torch.device(arguments.device), batch_size=32)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(examples, file)
    return examples, count


def conditions(device: str) -> str:
    """What the times depend on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    cpu = names[0] if names else platform.machine()
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    return f"{cpu}, {load}, torch {torch.__version__}, {torch.get_num_threads()} threads, {device}"


def main() -> None:
    """Run the parts, print their tables, and keep them with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["generation", "loss"], default=["generation", "loss"])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024 * 2**i for i in range(6)])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--generation-dim", type=int, default=256)
    parser.add_argument("--generation-depth", type=int, default=4)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where trainings are kept; left out, nowhere")
    parser.add_argument("--save", action="store_true", help="write the tables to results/recurrent_*.txt")
    arguments = parser.parse_args()
    arguments.rows = [REFERENCE, *(name for name in arguments.rows if name != REFERENCE)]
    torch.set_num_threads(arguments.threads)
    for part in arguments.parts:
        told = conditions(arguments.device)  # before the start
        text = f"{told}\n\n{generation(arguments) if part == 'generation' else loss(arguments)}"
        print(text + "\n", flush=True)
        if arguments.save:
            (RESULTS / f"recurrent_{part}.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
