"""Does the interval of a latency ratio hold what it says? A model is timed against itself, again and again.

    python benchmarks/latency_noise.py [--trials 40] [--batch 1]

The ratio of a model to itself is 1, so about 95 of 100 intervals should cover 1. The table also shows what timing
one after the other (AAA BBB) instead of in turn (AB BA) would have given on the same machine at the same time.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout, installed or not

from core.measure.latency import Sample, ratio_interval, sample_of, time_alternately
from core.measure.work import forward_work
from core.runtimes.eager import eager

REPEATS = 30


class Image(nn.Sequential):
    """A small network of dense layers."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits."""
        output: torch.Tensor = super().forward(pixel_values)
        return output


@dataclass
class Tally:
    """What became of the trials of one way of timing."""

    covered: int = 0
    disturbed: int = 0
    widths: list[float] | None = None

    def add(self, low: float, high: float) -> None:
        """Count one interval."""
        self.covered += low <= 1 <= high
        self.widths = [*(self.widths or []), high - low]


def one_after_the_other(first: Sample, second: Sample) -> tuple[float, float]:
    """The interval from timing all of one before all of the other."""
    times: NDArray[np.float64] = np.array([[sample() for _ in range(REPEATS)] for sample in (first, second)])
    return ratio_interval(times.T)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = Image(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
    runner = eager(model, torch.device("cpu"), torch.float32, {})
    batch = {"pixel_values": torch.randn(arguments.batch, 256)}
    in_turn, in_blocks = Tally(), Tally()
    with torch.inference_mode():
        first, second = (sample_of(forward_work(runner, batch)) for _ in range(2))
        for _ in range(arguments.trials):
            timing = time_alternately(first, second, repeats=REPEATS)
            assert timing.ratio_low is not None
            assert timing.ratio_high is not None
            in_turn.add(timing.ratio_low, timing.ratio_high)
            in_turn.disturbed += timing.disturbed
            in_blocks.add(*one_after_the_other(first, second))
    print(f"{arguments.trials} trials of {REPEATS} rounds, batch {arguments.batch}, 1 thread")
    print(f"{'order':24}{'covers 1':>10}{'median width':>14}{'disturbed':>11}")
    for name, tally in (("in turn (ours)", in_turn), ("one after the other", in_blocks)):
        covered = f"{100 * tally.covered / arguments.trials:.0f} %"
        width = f"{100 * float(np.median(tally.widths or [0])):.1f} %"
        print(f"{name:24}{covered:>10}{width:>14}{tally.disturbed if tally is in_turn else '':>11}")


if __name__ == "__main__":
    main()
