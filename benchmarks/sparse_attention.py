"""Time and peak memory of sparse attention by length, beside full attention and Hugging Face's BigBird in one run.

    python -m benchmarks.sparse_attention [--lengths 1024 ... 16384] [--heads 12] [--device cpu] [--save]

Every arm gets the same queries, keys and values of one text and gives as many outputs: projections are left out. A
training step is the forward pass and the gradients of all three. Arms alternate, round after round; `x full` is the
median of the rounds' ratios, and growth compares the best times of a length and its double. Hugging Face's module is
in training mode, without dropout: in evaluation all of its random blocks are the first one. It draws them anew in
every call, with loops in Python; the last row leaves that out. Peaks are of fresh processes, above inputs and outputs
and what an idle one holds. `--clock processor --threads 1` where other work runs on the machine.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.measure.peak import measure_peak
from core.nn.attention.bigbird import BigBirdAttention
from core.nn.attention.etc import EtcAttention
from core.nn.attention.sliding_window import SlidingWindowAttention

RESULT = Path(__file__).with_name("results") / "sparse_attention.txt"
HEAD_DIM = 64
BLOCK, RANDOM = 64, 3  # BigBird's base model
WINDOW = 96  # on either side: as many tokens as BigBird's three blocks
RADIUS, GLOBAL_TOKENS = 84, 64  # ETC's base model; it has 256 global tokens at 4096
PHASES = ("forward", "training step")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Arm = Callable[[Tensor, Tensor, Tensor], Tensor]


def full(length: int, heads: int) -> Arm:
    """torch's own attention over everything."""
    return F.scaled_dot_product_attention


def sliding_window(length: int, heads: int) -> Arm:
    """A window alone."""
    made = SlidingWindowAttention(heads * HEAD_DIM, heads, window=WINDOW)
    return lambda q, k, v: made.attend(q, k, v, None, None)


def bigbird(length: int, heads: int) -> Arm:
    """BigBird, internal construction."""
    made = BigBirdAttention(heads * HEAD_DIM, heads, block=BLOCK, random=RANDOM, length=length)
    made.initialize_(torch.Generator().manual_seed(0))
    return _on_device(made)


def etc(length: int, heads: int) -> Arm:
    """ETC; its global tokens are the text's first, so that it computes as many outputs as the others."""
    made = EtcAttention(
        heads * HEAD_DIM,
        heads,
        radius=RADIUS,
        max_distance=12,
        global_tokens=GLOBAL_TOKENS,
        length=length - GLOBAL_TOKENS,
    )
    made.initialize_(torch.Generator().manual_seed(0))
    return _on_device(made)


def _on_device(made: BigBirdAttention | EtcAttention) -> Arm:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return made.to(q.device).attend(q, k, v, None, None)

    return attend


def hugging_face(length: int, heads: int) -> Arm:
    """transformers' BigBirdBlockSparseAttention, which draws its random blocks in every call."""
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    config = BigBirdConfig(
        hidden_size=heads * HEAD_DIM,
        num_attention_heads=heads,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        max_position_embeddings=length,
        attention_probs_dropout_prob=0.0,
    )
    theirs = BigBirdBlockSparseAttention(config, seed=0).train()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = torch.ones(len(q), length, device=q.device)
        blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(seen, BLOCK)
        sizes = (heads, RANDOM, HEAD_DIM, BLOCK, BLOCK, len(q), length, length)
        options: dict[str, Any] = {"seed": 0, "plan_from_length": None, "plan_num_rand_blocks": None}
        masks = (band, rows, columns, blocked, blocked)
        return theirs.bigbird_block_sparse_attention(q, k, v, *masks, *sizes, **options)[0]

    attend.module = theirs  # type: ignore[attr-defined]
    return attend


def hugging_face_drawn_once(length: int, heads: int) -> Arm:
    """The same without the drawing."""
    attend = hugging_face(length, heads)
    module: nn.Module = attend.module  # type: ignore[attr-defined]
    for name in ("_bigbird_block_rand_mask", "_bigbird_block_rand_mask_with_head"):
        setattr(module, name, _kept(getattr(module, name)))
    return attend


def _kept(draw: Callable[..., Any]) -> Callable[..., Any]:
    drawn: list[Any] = []

    def first(*args: Any, **options: Any) -> Any:
        if not drawn:
            drawn.append(draw(*args, **options))
        return drawn[0]

    return first


ARMS: dict[str, Callable[[int, int], Arm]] = {
    "full (torch SDPA)": full,
    "sliding window": sliding_window,
    "BigBird": bigbird,
    "ETC": etc,
    "Hugging Face BigBird": hugging_face,
    "the same, drawn once": hugging_face_drawn_once,
}


def inputs_of(length: int, heads: int, device: str) -> list[Tensor]:
    """Queries, keys and values [1, heads, length, head_dim], laid out as projections leave them."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, length, heads, HEAD_DIM, generator=generator).to(device).transpose(1, 2) for _ in "qkv"]
    return [x.requires_grad_() for x in made]


def execute(arm: Arm, inputs: list[Tensor], phase: str) -> None:
    """One forward pass, or one with the gradients of all inputs."""
    if phase == "forward":
        with torch.no_grad():
            arm(*inputs)
    else:
        mixed = arm(*inputs)
        torch.autograd.grad(mixed, inputs, torch.ones_like(mixed))
    if inputs[0].is_cuda:
        torch.cuda.synchronize()


def peak_case(name: str, length: int, heads: int, phase: str, device: str) -> None:
    """What a fresh process executes."""
    execute(ARMS[name](length, heads), inputs_of(length, heads, device), phase)


def times_of(length: int, phase: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every arm in every round."""
    clock = CLOCKS[options.clock]
    inputs = inputs_of(length, options.heads, options.device)
    arms = {name: make(length, options.heads) for name, make in ARMS.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(options.rounds + 1):
        for name, arm in arms.items():
            start = clock()
            execute(arm, inputs, phase)
            if index:  # the first round warms up
                times[name].append(clock() - start)
    return times


def peaks_of(length: int, phase: str, options: argparse.Namespace) -> dict[str, int]:
    """Bytes that every arm holds at most."""
    return {
        name: measure_peak(
            peak_case, name, length, options.heads, phase, options.device, device_type=options.device
        ).peak_bytes
        for name in ARMS
    }


def time_table(times: dict[int, dict[str, list[float]]]) -> list[str]:
    """A line an arm, a column a length."""
    rows: dict[str, list[str]] = {name: [] for name in ARMS}
    for (before, _), (_, measured) in pairwise(times):
        for name, own in measured.items():
            ratio = statistics.median(a / b for a, b in zip(own, measured["full (torch SDPA)"], strict=True))
            growth = f" x{min(own) / min(times[before][name]):.2f}" if before else ""
            rows[name].append(f"{1000 * statistics.median(own):,.1f} ({ratio:.2f}){growth}")
    return _table(list(times), rows)


def peak_table(peaks: dict[int, dict[str, int]]) -> list[str]:
    """A line an arm, a column a length."""
    rows: dict[str, list[str]] = {name: [] for name in ARMS}
    for (before, _), (_, measured) in pairwise(peaks):
        for name, own in measured.items():
            rows[name].append(f"{own / 1e6:,.0f}" + (f" x{own / peaks[before][name]:.2f}" if before else ""))
    return _table(list(peaks), rows)


def pairwise(cells: dict[int, Any]) -> list[tuple[tuple[int, Any], tuple[int, Any]]]:
    """Every length with the one before it: 0 before the first."""
    listed = list(cells.items())
    return list(zip([(0, None), *listed], listed, strict=False))


def _table(lengths: list[int], rows: dict[str, list[str]]) -> list[str]:
    head = " " * 22 + "".join(f"{length:>24,}" for length in lengths)
    return [head, *(name.ljust(22) + "".join(f"{cell:>24}" for cell in cells) for name, cells in rows.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="processor: of all threads together")
    parser.add_argument("--only", choices=("times", "peaks"), help="one of the two tables; saved to a file of its own")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        f"{options.heads} heads of {HEAD_DIM}, one text, float32, {options.rounds} rounds, {options.clock} time; "
        f"{options.device} ({platform.machine()}), threads: {options.threads}, torch {torch.__version__}",
        f"BigBird: blocks of {BLOCK}, {RANDOM} random; ETC: radius {RADIUS}, {GLOBAL_TOKENS} global; window {WINDOW}",
    ]
    print(*lines, sep="\n", flush=True)
    loads = []

    def add(table: list[str]) -> None:
        print(*table, sep="\n", flush=True)
        lines.extend(table)

    for phase in PHASES:
        if options.only != "peaks":
            times = {}
            for length in options.lengths:
                loads.append(f"{os.getloadavg()[0]:.1f}")
                times[length] = times_of(length, phase, options)
            add(["", f"{phase}: median ms (x full), growth of the best time", *time_table(times)])
        if options.only != "times":
            peaks = {length: peaks_of(length, phase, options) for length in options.lengths}
            add(["", f"{phase}: peak MB, growth", *peak_table(peaks)])
    if loads:
        add(["", f"load averages along the way: {', '.join(loads)}"])
    if options.save:
        name = f"{RESULT.stem}_{options.only}.txt" if options.only else RESULT.name
        RESULT.with_name(name).write_text("\n".join(line.rstrip() for line in lines) + "\n")


if __name__ == "__main__":
    main()
