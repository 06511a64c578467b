"""The interface of layouts, and the matrix of a weight that they encode."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """An encoding of which weights of a matrix [rows, columns] are kept. Their values are in row-major order."""

    @property
    def n_values(self) -> int:
        """The number of stored values: one for each kept weight, and for each weight that fills up a group."""
        ...

    @property
    def n_bytes(self) -> int:
        """The number of bytes of the encoded positions."""
        ...

    def arguments(self) -> dict[str, Any]:
        """The arguments of `make_layout` besides the shape of the matrix."""
        ...

    def fill(self, mask: Tensor) -> Tensor:
        """The mask [rows, columns] of the stored weights: the kept ones, and those that fill up groups."""
        ...

    def encode(self, mask: Tensor) -> Tensor:
        """Encode a filled mask [rows, columns] as uint8 [n_bytes]."""
        ...

    def decode(self, packed: Tensor) -> Tensor:
        """The filled mask [rows, columns] that was encoded."""
        ...


def rows_of(weight: Tensor) -> Tensor:
    """The weight of a linear layer [K, C] unchanged; of a convolution [K, C, R, S] as rows (R, S, K), [R*S*K, C]."""
    return weight if weight.dim() == 2 else weight.movedim(1, -1).movedim(0, -2).flatten(0, -2)


def weight_from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of this shape from its rows: the inverse of `rows_of`."""
    if len(shape) == 2:
        return rows
    outputs, inputs, *kernel = shape
    return rows.reshape(*kernel, outputs, inputs).movedim(-2, 0).movedim(-1, 1).contiguous()


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of `rows_of` a weight of this shape."""
    return torch.Size(shape).numel() // shape[1], shape[1]
