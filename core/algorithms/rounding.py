"""Rounds a weight column by column to uniform grids, each fitted to its group of columns when it is reached."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.algorithms.quantization_grids import Grid, QuantizedWeight


class Rounding:
    """Grids that `observe` fits to rows of values, one for each row and group of columns.

    `group_size` None means one group, the whole row. Columns come in order; zero stays exactly zero.
    """

    def __init__(self, observe: Callable[[Tensor], Grid], group_size: int | None = None):
        self.group_size = group_size
        self._observe = observe
        self._grids: list[Grid] = []
        self._codes: list[Tensor] = []

    def begin(self, group: Tensor) -> None:
        """Fit the grids of the group [rows, n] whose first column comes next."""
        self._grids.append(self._observe(group.float()))

    def round(self, column: Tensor) -> Tensor:
        """The grid's values nearest to a column [rows]."""
        grid = self._grids[-1]
        codes = grid.quantize(column.float()[:, None])
        self._codes.append(codes)
        return grid.dequantize(codes)[:, 0].to(column.dtype)

    def result(self) -> QuantizedWeight:
        """Codes, scales and zero points of all columns."""
        return QuantizedWeight(
            codes=torch.cat(self._codes, dim=1),
            scales=torch.cat([grid.scale for grid in self._grids], dim=1),
            zero_points=torch.cat([grid.zero_point for grid in self._grids], dim=1),
        )
