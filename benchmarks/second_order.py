"""Seconds to prune one layer by second order, beside a plain loop over its columns, in the same run.

    python -m benchmarks.second_order [--size 4096] [--rows 4096] [--device cpu] [--save]

The plain loop is the method as it is written down: invert the Hessian, factorize the inverse, and after each column
update all columns behind it. Its time per column falls as fewer are left, so that it is taken at `--samples` places and
summed up over all columns; with `--samples 0` every column is executed. Both do the same: the largest difference
of their weights on a smaller layer is printed.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from core.algorithms.masks import keep_largest, nm_mask
from core.algorithms.second_order import DAMPING, NOfM, Pattern, Unstructured, factorize, solve

RESULT = Path(__file__).parent / "results" / "second_order.txt"
PATTERNS: dict[str, Pattern] = {"unstructured 50 %": Unstructured(0.5, 128), "2:4": NOfM(2, 4)}
CHECKED = 512  # inputs and outputs of the layer that both ways solve to the end


def problem(rows: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A weight and the Hessian of correlated inputs."""
    generator = torch.Generator(device).manual_seed(0)
    mixing = torch.randn(d, d, generator=generator, device=device) / d**0.5
    x = torch.randn(2 * d, d, generator=generator, device=device) @ mixing
    return torch.randn(rows, d, generator=generator, device=device), 2 / len(x) * x.T @ x


def plain_factor(hessian: Tensor) -> Tensor:
    """U of the damped inverse Hessian by three factorizations, float32, as the papers' own code has it."""
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian), device=hessian.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


class PlainLoop:
    """Weight [rows, d]; every column updates all behind it."""

    def __init__(self, weight: Tensor, upper: Tensor, pattern: Pattern):
        self.weight, self.upper, self.pattern = weight.clone(), upper, pattern
        self.mask = torch.ones_like(weight, dtype=torch.bool)

    def column(self, i: int) -> None:
        """Finish column i."""
        width = self.pattern.m if isinstance(self.pattern, NOfM) else self.pattern.columns or 128
        if i % width == 0:
            scores = (self.weight[:, i : i + width] / self.upper.diagonal()[i : i + width]).square()
            if isinstance(self.pattern, NOfM):
                self.mask[:, i : i + width] = nm_mask(scores, self.pattern.n, self.pattern.m)
            else:
                kept = scores.numel() - round(self.pattern.sparsity * scores.numel())
                self.mask[:, i : i + width] = keep_largest(scores, kept)
        final = self.weight[:, i] * self.mask[:, i]
        error = (self.weight[:, i] - final) / self.upper[i, i]
        self.weight[:, i:] -= error[:, None] * self.upper[i, i:]
        self.weight[:, i] = final


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def plain_seconds(loop: PlainLoop, samples: int, device: torch.device) -> float:
    """Seconds of the plain loop over all columns: executed, or from runs of columns at evenly spread places."""
    d = loop.weight.shape[1]
    if samples == 0:
        return timed(lambda: [loop.column(i) for i in range(d)], device)
    width = 128  # a whole block, so that choosing its mask counts as often as it happens
    starts = [round((k + 0.5) * (d // width) / samples - 0.5) * width for k in range(samples)]
    loop.column(0)
    runs = [timed(lambda s=s: [loop.column(i) for i in range(s, min(s + width, d))], device) for s in starts]
    return statistics.mean(runs) * d / width


def largest_difference(device: torch.device, pattern: Pattern) -> float:
    """Of the weights that the two ways find for a smaller layer, as a share of the largest weight, in float64."""
    weight, hessian = (tensor.double() for tensor in problem(CHECKED, CHECKED, device))
    loop = PlainLoop(weight, plain_factor(hessian), pattern)
    for i in range(CHECKED):
        loop.column(i)
    found = solve(weight, factorize(hessian), pattern=pattern).weight
    return float((found - loop.weight).abs().max() / loop.weight.abs().max())


def table(rows: int, d: int, samples: int, repeats: int, device: torch.device) -> str:
    """Measure, and put it into words."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    how = "every column" if samples == 0 else f"{samples} of {-(-d // 128)} blocks of columns, and scaled up"
    load = f"load {os.getloadavg()[0]:.0f} of {os.cpu_count()} cores"
    lines = [f"One layer {rows} x {d} on {name}, {load}, torch {torch.__version__}; best of {repeats}"]
    lines.append(f"The plain loop is timed over {how}.")
    lines.append(f"{'':20}{'factor':>10}{'sweep':>10}{'in all':>10}{'plain loop':>12}{'times':>8}{'difference':>12}")
    weight, hessian = problem(rows, d, device)
    factorize(hessian[:64, :64])
    plain = min(timed(lambda: plain_factor(hessian), device) for _ in range(repeats))
    ours = min(timed(lambda: factorize(hessian), device) for _ in range(repeats))
    factor, upper = factorize(hessian), plain_factor(hessian)
    for label, pattern in PATTERNS.items():
        sweep = min(timed(lambda p=pattern: solve(weight, factor, pattern=p), device) for _ in range(repeats))
        slow = plain + plain_seconds(PlainLoop(weight, upper, pattern), samples, device)
        both = ours + sweep
        difference = largest_difference(device, pattern)
        lines.append(
            f"{label:20}{ours:9.2f}s{sweep:9.2f}s{both:9.2f}s{slow:11.1f}s{slow / both:8.1f}{difference:12.1e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="inputs of the layer")
    parser.add_argument("--rows", type=int, help="its outputs; as many as inputs if left out")
    parser.add_argument("--samples", type=int, default=2, help="places at which the plain loop is timed; 0: everywhere")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name} too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    text = table(asked.rows or asked.size, asked.size, asked.samples, asked.repeats, torch.device(asked.device))
    print(text)
    if asked.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
