"""What is summed up over a layer's inputs, batch by batch. Sums are float32, or float64 where the inputs are."""

from typing import Protocol

import torch
from torch import Tensor


class Statistic(Protocol):
    """Something summed up over input vectors [groups, n, d]."""

    count: int  # vectors seen, of each group

    def add(self, rows: Tensor) -> None:
        """Take in further vectors [groups, n, d]."""


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
        assert self._squares is not None, "no input was seen"
        return self._squares.sqrt().float()


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
        assert self._products is not None, "no input was seen"
        return self._products * (2 / self.count)


def _precise(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
