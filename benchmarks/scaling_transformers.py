"""Time to decode a token at the widths of Scaling Transformers: dense, sparse FF, sparse QKV, both, and the loss layer.

    python -m benchmarks.scaling_transformers [--widths 800M 17B] [--threads 2] [--rounds 15] [--clock wall] [--save]

bfloat16, batch 1. A round times every variant in turn, with the caches emptied before each: a stack of layers with
weights of their own (all 24 of 800M; one of 17B, 2.4 GB), and the layer that gives the logits. A model's time is that
of a layer times its layers, and the logits. Dense linears are executed as matrix-vector products, which are faster
here than nn.Linear; one row shows nn.Linear. Weights are random, which times do not depend on. The paper's times are
quoted, from another machine and whole models; ours are composed. On a machine that others use, one thread and
`--clock cpu` count only the thread's own time.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from core.nn.attention.full import FullAttention
from core.nn.attention.sparse_qkv import SparseQkvAttention
from core.nn.ffn.mlp import Mlp
from core.nn.ffn.sparse_ffn import SparseFfn
from core.nn.multiplicative import MultiplicativeLinear
from core.nn.transformer import TransformerBlock

RESULT = Path(__file__).parent / "results" / "scaling_transformers.txt"
VOCABULARY, LOSS_MODULES, CONTEXT = 32_000, 4, 16
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
CACHE_BYTES = 1_000_000_000  # read before each timing: more than the last level of cache holds


@dataclass(frozen=True)
class Width:
    """A size of the paper. With sparse QKV the hidden width is larger, which gives the parameters back."""

    dim: int
    heads: int
    modules: int
    hidden: int
    hidden_qkv: int
    layers: int
    stack: int  # layers in memory at once
    quoted: dict[str, str] = field(default_factory=dict)  # variant -> seconds a token in the paper


# The paper's 800M has 24 decoder layers beside 24 of an encoder. How many its 17B has is not known here: 15 dense
# layers and the embeddings of this width add up to 17 billion.
WIDTHS = {
    "800M": Width(1024, 16, 16, 4096, 6144, 24, 24, {"dense": "0.160", "FF": "0.093", "FF 1 of 128": "0.089"}),
    "17B": Width(
        9216,
        96,
        64,
        40_960,
        65_536,
        15,
        1,
        {"dense": "3.651", "FF": "1.595", "FF+QKV": "0.183", "FF+QKV+loss": "0.097"},
    ),
}  # 800M: the paper's table 2 (sparse FF alone); 17B: its table 6 (Terraformer)
UNITS = {"800M": {"FF": (64, 64), "FF 1 of 128": (128, 32)}, "17B": {"FF": (256, 32)}}  # block size, rank


class MatrixVector(nn.Linear):
    """A linear layer for one token as a matrix-vector product."""

    def forward(self, input: Tensor) -> Tensor:
        """[1, 1, in] -> [1, 1, out]."""
        x = input.view(-1)
        product = torch.mv(self.weight, x) if self.bias is None else torch.addmv(self.bias, self.weight, x)
        return product.view(1, 1, -1)


def as_vectors(module: nn.Module) -> nn.Module:
    """The same module, its linears as matrix-vector products."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = MatrixVector
    return module


class Buffer:
    """One stretch of memory that the weights of every variant are views of: only one's time is taken at once."""

    def __init__(self) -> None:
        self.values = torch.empty(0, dtype=torch.bfloat16)

    def place(self, modules: list[nn.Module]) -> None:
        """Give modules on the meta device their memory, one behind the other."""
        needed = sum(-(-p.numel() // 64) * 64 for module in modules for p in module.parameters())
        assert needed <= self.values.numel(), "reserve first"
        start = 0
        for module in modules:
            for owner in module.modules():
                for name, parameter in list(owner.named_parameters(recurse=False)):
                    view = self.values[start : start + parameter.numel()].view(parameter.shape)
                    setattr(owner, name, nn.Parameter(view, requires_grad=False))
                    start += -(-parameter.numel() // 64) * 64

    def reserve(self, n_values: int) -> None:
        """Room for so many values, at random: no row repeats another."""
        drawn = torch.randn(1_000_003).mul_(0.02).bfloat16()
        self.values = torch.empty(n_values, dtype=torch.bfloat16)
        for part in self.values.split(len(drawn)):
            part.copy_(drawn[: len(part)])


def block(width: Width, units: tuple[int, int] | None, qkv: bool) -> nn.Module:
    """A decoder layer on the meta device; `units` are the block size and rank of a sparse feed-forward network."""
    hidden = width.hidden_qkv if qkv else width.hidden
    attention: nn.Module = FullAttention(width.dim, width.heads, causal=True)
    if qkv:
        attention = SparseQkvAttention(width.dim, width.heads, n_modules=width.modules)
    ffn: nn.Module = Mlp(width.dim, hidden)
    if units is not None:
        ffn = SparseFfn(width.dim, hidden, block_size=units[0], rank=units[1], quant_prob=0.3, temperature=0.1)
    return TransformerBlock(width.dim, attention, ffn)


def variants(name: str) -> dict[str, Callable[[], list[nn.Module]]]:
    """Makers of what is timed: stacks of layers, and the layer of the logits."""
    width = WIDTHS[name]

    def stack(units: tuple[int, int] | None, qkv: bool) -> list[nn.Module]:
        return [as_vectors(block(width, units, qkv)) for _ in range(width.stack)]

    made: dict[str, Callable[[], list[nn.Module]]] = {"dense": lambda: stack(None, False)}
    made["dense, nn.Linear"] = lambda: [block(width, None, False) for _ in range(width.stack)]
    for label, units in UNITS[name].items():
        made[label] = lambda units=units: stack(units, False)  # type: ignore[misc]
    made["QKV"] = lambda: stack(None, True)
    made["FF+QKV"] = lambda: stack(UNITS[name]["FF"], True)
    made["loss dense"] = lambda: [MatrixVector(width.dim, VOCABULARY, bias=False)]
    made["loss sparse"] = lambda: [MultiplicativeLinear(width.dim, VOCABULARY, LOSS_MODULES, bias=False)]
    return made


class Token:
    """One step of decoding through modules that have seen a context."""

    def __init__(self, modules: list[nn.Module], dim: int):
        self.modules, self.dim = modules, dim
        self.caches = [m.attention.make_cache(10_000) if isinstance(m, TransformerBlock) else None for m in modules]
        for cache, module in zip(self.caches, modules, strict=True):
            for _ in range(CONTEXT if cache is not None else 0):
                module.attention(self.input(), cache=cache)  # type: ignore[operator]

    def input(self) -> Tensor:
        """Another token each time, so that other units are chosen."""
        return torch.randn(1, 1, self.dim).bfloat16()

    def seconds(self, clock: Callable[[], float]) -> float:
        """Of one step through all modules."""
        x = self.input()
        start = clock()
        for module, cache in zip(self.modules, self.caches, strict=True):
            x = module(x) if cache is None else module(x, cache=cache)
        return clock() - start


def measure(name: str, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of a layer (or of the logits) by variant, one of each round."""
    width, flush = WIDTHS[name], torch.zeros(CACHE_BYTES // 8, dtype=torch.int64)
    buffer, tokens = Buffer(), {}
    with torch.device("meta"):
        made = {label: make() for label, make in variants(name).items()}
    buffer.reserve(max(_values(modules) for modules in made.values()))
    for label, modules in made.items():
        buffer.place(modules)
        for module in modules:
            module.eval()
            for part in module.modules():
                if isinstance(part, SparseQkvAttention):
                    part.prepare()
        tokens[label] = Token(modules, width.dim)
    times: dict[str, list[float]] = {label: [] for label in tokens}
    for index in range(rounds + 2):
        for label, token in tokens.items():
            flush.sum()
            seconds = token.seconds(clock) / len(token.modules)
            if index >= 2:
                times[label].append(seconds)
    return times


def _values(modules: list[nn.Module]) -> int:
    return sum(-(-p.numel() // 64) * 64 for module in modules for p in module.parameters())


HEAD = ["ms a layer", "best", "x dense", "logits ms", "s a token", "x dense", "paper s", "x dense"]


def report(name: str, times: dict[str, list[float]]) -> Iterator[str]:
    """A row a variant: milliseconds of a layer and of the logits, the composed model, and the paper's."""
    width = WIDTHS[name]
    yield f"\n{name}: width {width.dim}, hidden {width.hidden}, with sparse QKV {width.hidden_qkv}"
    yield f"{width.layers} layers, {width.stack} of them in memory\n{'':18}" + "".join(f"{word:>11}" for word in HEAD)
    blocks = [label for label in times if not label.startswith("loss")]
    dense = composed(width, times, "dense", "loss dense")
    for title, label, loss in [(b, b, "loss dense") for b in blocks] + [("FF+QKV+loss", "FF+QKV", "loss sparse")]:
        layer, model = times[label], composed(width, times, label, loss)
        quoted = width.quoted.get(title, "")
        cells = [
            f"{1e3 * statistics.median(layer):.3f}",
            f"{1e3 * min(layer):.3f}",
            f"{_ratio(times['dense'], layer):.2f}",
            f"{1e3 * statistics.median(times[loss]):.3f}",
            f"{statistics.median(model):.4f}",
            f"{_ratio(dense, model):.2f}",
            quoted,
            f"{float(width.quoted['dense']) / float(quoted):.2f}" if quoted else "",
        ]
        yield f"{title:18}" + "".join(f"{cell:>11}" for cell in cells)


def composed(width: Width, times: dict[str, list[float]], label: str, loss: str) -> list[float]:
    """Seconds of all layers and the logits, round by round."""
    return [width.layers * layer + logits for layer, logits in zip(times[label], times[loss], strict=True)]


def _ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: this thread's own time, with --threads 1")
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name} into benchmarks/results")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads > 1:
        parser.error("--clock cpu counts one thread: add --threads 1")
    torch.set_num_threads(arguments.threads)
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    lines = [f"torch {torch.__version__}, {arguments.threads} threads, {arguments.clock} clock, {load}"]
    lines.append(f"{arguments.rounds} rounds; medians; ratios are the median of each round's own; bfloat16, batch 1")
    for name in arguments.widths:
        lines += report(name, measure(name, arguments.rounds, CLOCKS[arguments.clock]))
    print("\n".join(lines))
    if arguments.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
