"""Round a weight column by column to uniform grids, each fitted when its group of columns is reached, or all before."""

import torch
from torch import Tensor

from core.algorithms.quantization_grids import Fit, Grid, QuantizedWeight


class Rounding:
    """The grids of a weight [rows, d], one for each row and group of columns, and the codes of the columns so far.

    `fit` chooses the grids, with what `importance` [d] says of the group's columns where it is given. `group_size` None
    means one group, the whole row. `static` grids are all fitted beforehand, and the columns may come in any order;
    others are fitted when their turn comes, so columns come from left to right. Zero stays exactly zero.
    """

    def __init__(
        self, fit: Fit, group_size: int | None = None, *, static: bool = False, importance: Tensor | None = None
    ):
        self.group_size = group_size
        self.static = static or group_size is None
        self._fit, self._importance = fit, importance
        self._grids: list[Grid] = []
        self._codes: dict[int, Tensor] = {}

    def begin_all(self, weight: Tensor) -> None:
        """Fit the grids of all groups to a weight [rows, d]."""
        size = self.group_size or weight.shape[1]
        for first in range(0, weight.shape[1], size):
            self.begin(first, weight[:, first : first + size])

    def begin(self, first: int, group: Tensor) -> None:
        """Fit the grids of the next group [rows, n], whose first column has the index `first`."""
        more = () if self._importance is None else (self._importance[first : first + group.shape[1]],)
        self._grids.append(self._fit(group.float(), *more))

    def round(self, index: int, column: Tensor) -> Tensor:
        """The values on the grid that are nearest to the column [rows] of this index."""
        grid = self._grids[index // self.group_size if self.group_size else 0]
        codes = grid.quantize(column.float()[:, None])
        self._codes[index] = codes
        return grid.dequantize(codes)[:, 0].to(column.dtype)

    def result(self) -> QuantizedWeight:
        """Codes, scales and zero points of all columns."""
        return QuantizedWeight(
            codes=torch.cat([self._codes[index] for index in range(len(self._codes))], dim=1),
            scales=torch.cat([grid.scale for grid in self._grids], dim=1),
            zero_points=torch.cat([grid.zero_point for grid in self._grids], dim=1),
        )
