"""Round a weight column by column to uniform grids, each fitted when its group of columns is reached."""

import torch
from torch import Tensor

from core.algorithms.quantization_grids import Fit, Grid, QuantizedWeight


class Rounding:
    """The grids of a weight, one for each row and group of columns, and the codes of the columns so far.

    `fit` chooses the grids. `group_size` None means one group, the whole row. Columns come in order; zero stays
    exactly zero.
    """

    def __init__(self, fit: Fit, group_size: int | None = None):
        self.group_size = group_size
        self._fit = fit
        self._grids: list[Grid] = []
        self._codes: list[Tensor] = []

    def begin(self, group: Tensor) -> None:
        """Fit the grids of the group [rows, n] whose first column comes next."""
        self._grids.append(self._fit(group.float()))

    def round(self, column: Tensor) -> Tensor:
        """The values on the grid that are nearest to a column [rows]."""
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
