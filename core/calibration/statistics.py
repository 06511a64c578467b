"""What is summed up over a layer's inputs, batch by batch. Sums are float32, or float64 where the inputs are."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.experts.segments import Segments


class Statistic(Protocol):
    """Something summed up over input vectors [groups, n, d]."""

    count: int  # vectors seen, of each group

    def add(self, rows: Tensor) -> None:
        """Take in further vectors [groups, n, d]."""

    @property
    def value(self) -> Tensor:
        """What they come to, [groups, ...]."""
        ...

    def alike(self, d: int) -> Tensor:
        """What it would be of inputs that do not differ, but for a factor: [1, ...]."""
        ...


class InputNorms:
    """The L2 norm of each input channel over all vectors."""

    def __init__(self) -> None:
        self.count = 0
        self._squares: Tensor | None = None  # [groups, d]; float64: few numbers, of which many are added

    def add(self, rows: Tensor) -> None:
        self.count += rows.shape[1]
        squares = _precise(rows).square().sum(dim=1).double()
        self._squares = squares if self._squares is None else self._squares + squares

    @property
    def value(self) -> Tensor:
        """[groups, d]."""
        assert self._squares is not None, "no calibration input was recorded"
        return self._squares.sqrt().float()

    def alike(self, d: int) -> Tensor:
        """Ones [1, d]: a weight's magnitude is its score."""
        return torch.ones(1, d)


class InputMagnitudes:
    """The mean and the largest magnitude of each input channel over all vectors."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = self._largest = torch.zeros(0)  # [groups, d] each; the sums are float64

    def add(self, rows: Tensor) -> None:
        if not rows.shape[1]:
            return
        magnitudes = _precise(rows).abs()
        sums, largest = magnitudes.sum(dim=1, dtype=torch.float64), magnitudes.amax(dim=1)
        self._sums = self._sums + sums if self.count else sums
        self._largest = torch.maximum(self._largest, largest) if self.count else largest
        self.count += rows.shape[1]

    @property
    def value(self) -> Tensor:
        """Means and maxima, [groups, 2, d]."""
        assert self.count, "no calibration input was recorded"
        return torch.stack([(self._sums / self.count).to(self._largest.dtype), self._largest], dim=1)

    def alike(self, d: int) -> Tensor:
        """Ones [1, 2, d]."""
        return torch.ones(1, 2, d)


class Hessian:
    """H = 2/N sum x x^T: the second derivative of a layer's mean squared output error by each row of its weight."""

    def __init__(self) -> None:
        self.count = 0
        self._products: Tensor | None = None  # [groups, d, d]

    def add(self, rows: Tensor) -> None:
        self.count += rows.shape[1]
        rows = _precise(rows)
        if self._products is None:
            self._products = rows.mT @ rows
        else:
            self._products.baddbmm_(rows.mT, rows)

    @property
    def value(self) -> Tensor:
        """[groups, d, d]."""
        assert self._products is not None, "no calibration input was recorded"
        return self._products * (2 / self.count)

    def alike(self, d: int) -> Tensor:
        """The identity [1, d, d]: a weight's magnitude is what it costs, and no other can make up for it."""
        return torch.eye(d)[None]


class OfExperts:
    """A statistic of each expert's own vectors, those of the tokens that its router sends it.

    Of an expert that no token reached nothing is known: its inputs count as alike.
    """

    def __init__(self, make: Callable[[], Statistic], layer: ExpertLinear | PackedExpertLinear):
        self._layer = layer
        self._parts = [make() for _ in range(layer.experts)]

    @property
    def count(self) -> int:
        """Vectors seen by all of them."""
        return sum(part.count for part in self._parts)

    @property
    def parts(self) -> list[Statistic]:
        """The statistic of each expert."""
        return self._parts

    @property
    def unreached(self) -> list[int]:
        """Experts that have seen none."""
        return [expert for expert, part in enumerate(self._parts) if not part.count]

    def add(self, rows: Tensor, segments: Segments) -> None:
        """Take in further vectors [n, d], sorted by expert."""
        for expert, own in segments.slices:
            self._parts[expert].add(rows[None, own])

    def each(self) -> Iterator[Tensor]:
        """The statistics of one expert after another, [...] each, computed on demand."""
        d, device = self._layer.in_features, next(iter(self._layer.state_dict().values())).device
        for part in self._parts:
            yield (part.value if part.count else part.alike(d).to(device))[0]

    @property
    def value(self) -> Tensor:
        """[experts, ...]."""
        return torch.stack(list(self.each()))


def _precise(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
