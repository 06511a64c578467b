"""Learning the rounding of one block or layer: minibatches, the loss, progress and curves."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from core.algorithms.quantization_grids import QuantizationScheme
from core.algorithms.reconstruction.row_grid import RowGrid
from core.algorithms.reconstruction.units import Loss, Unit, Weights
from core.calibration import CalibrationBlock
from core.context import Context
from core.nn.quant_linear import QuantLinear

CURVE_POINTS = 100  # of each block or layer
Packed = Mapping[str, list[QuantLinear]]  # by the layer's full name: one for each of its matrices


@dataclass(frozen=True)
class Plan:
    """What is reconstructed, and with how much data and work."""

    scheme: QuantizationScheme
    calibration_examples: int
    batch_size: int  # examples an iteration
    iterations: int  # of each block or layer
    by_layer: bool = False
    loss: Loss | None = None  # weights the errors of blocks by its gradient


@dataclass
class Learning:
    """A block or layer with the grids of its layers, by their full names, and where to report."""

    unit: Unit
    grids: Mapping[str, RowGrid]
    plan: Plan
    context: Context
    block: CalibrationBlock
    place: float  # which share of the block was done before
    share: float  # which share of the block this is
    start: int  # iterations of all that was learned before

    @cached_property
    def nearest(self) -> Packed:
        """The layers rounded to nearest."""
        return {name: grid.pack(grid.codes, grid.scale, grid.zero_point) for name, grid in self.grids.items()}

    @cached_property
    def nearest_error(self) -> float:
        """The mean squared error of the outputs after rounding to nearest."""
        return self.mean_error({name: grid.nearest() for name, grid in self.grids.items()})

    @property
    def iterations(self) -> int:
        """How many there are."""
        return self.plan.iterations

    def steps(self) -> Iterator[int]:
        """The iterations, with their progress; a cancelled run stops at one."""
        for step in range(self.iterations):
            self.block.report(self.place + self.share * step / self.iterations)
            yield step

    def backward(self, step: int, weights: Callable[[], Weights], times: float = 1.0) -> None:
        """Add `times` the gradients of a minibatch's mean squared error over that of rounding to nearest."""
        indices, total = next(self._minibatches), 0.0
        for index in indices:
            with torch.enable_grad():
                error, count = self.unit.error(index, weights())
                loss = error / (count * len(indices) * self.nearest_error)
            (times * loss).backward()
            total += float(loss.detach())
        self.draw("reconstruction error", step, total)

    def draw(self, name: str, step: int, value: float) -> None:
        """Add a point to a curve, at some of the iterations."""
        if step % max(1, self.iterations // CURVE_POINTS) == 0:
            self.context.record.curve(name, self.start + step, value)

    def mean_error(self, weights: Weights) -> float:
        """The mean squared error of the outputs over all calibration data."""
        return self.unit.mean_error(weights, lambda: self.block.report(self.place))

    @cached_property
    def _minibatches(self) -> Iterator[list[int]]:
        """As many of the unit's batches as make up a minibatch, in a new random order for each pass over the data."""
        generator = self.context.generator(f"minibatches of {self.unit.name}")
        examples = max(len(next(iter(batch.values()))) for batch in self.block.batches)
        size = min(self.unit.n_batches, -(-self.plan.batch_size // examples))
        return _shuffled(self.unit.n_batches, size, generator)


Learn = Callable[[Learning], Packed]


def weight_of(packed: list[QuantLinear]) -> Tensor:
    """The weights of a layer's packed matrices under one another: float32 [rows, in]."""
    return torch.cat([matrix.weight() for matrix in packed])


def _shuffled(n: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """`size` of 0..n - 1 at a time, all of them in each pass but for a remainder."""
    while True:
        order = torch.randperm(n, generator=generator).tolist()
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]
