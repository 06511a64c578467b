"""Where sparse products on a CPU become faster than dense ones: `python -m benchmarks.sparse_linear`.

Every cell is the median of alternated rounds: time of the packed layer over that of torch's dense float32 layer.
It settles `CSR_MAX_DENSITY` and `CSR_MIN_WEIGHTS` in core/nn/sparse_linear.py.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from core.nn import sparse_linear
from core.nn.sparse_linear import SparseLinear

SHAPES = [(192, 192), (768, 192), (768, 768), (3072, 768), (1024, 4096)]  # out, in
ROWS = (1, 16, 128, 512)
DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.inference_mode()
def ratio(packed: nn.Module, dense: nn.Module, x: torch.Tensor, rounds: int) -> float:
    packed(x)
    dense(x)
    return statistics.median(seconds(lambda: packed(x)) / seconds(lambda: dense(x)) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sparse_linear.CSR_MAX_DENSITY, sparse_linear.CSR_MIN_WEIGHTS = 1.0, 0
    print(f"torch {torch.__version__}, {arguments.threads} threads; CSR / dense, below 1 is faster")
    print("out x in".ljust(14), "kept".ljust(6), *(f"{rows} rows".rjust(9) for rows in ROWS))
    for n_out, n_in in SHAPES:
        for density in DENSITIES:
            mask = torch.rand(n_out, n_in) < density
            dense = nn.Linear(n_in, n_out)
            packed = SparseLinear.pack(dense, mask)
            packed.prepare()
            cells = (ratio(packed, dense, torch.randn(rows, n_in), arguments.rounds) for rows in ROWS)
            print(f"{n_out} x {n_in}".ljust(14), f"{density:.0%}".ljust(6), *(f"{cell:.2f}".rjust(9) for cell in cells))


if __name__ == "__main__":
    main()
