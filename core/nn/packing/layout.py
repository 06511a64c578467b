"""What a layout is, and the matrix that it sees of a weight."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """A way to write down which weights of a matrix [rows, columns] are kept. Values follow in row-major order."""

    @property
    def n_values(self) -> int:
        """Values to store: one for each kept weight (and for what a group must be filled up with)."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed places."""
        ...

    def arguments(self) -> dict[str, Any]:
        """What `make_layout` needs beside the matrix's shape."""
        ...

    def fill(self, mask: Tensor) -> Tensor:
        """The mask [rows, columns] of the stored weights: the kept ones, and what groups are filled up with."""
        ...

    def encode(self, mask: Tensor) -> Tensor:
        """A filled mask [rows, columns] as uint8 [n_bytes]."""
        ...

    def decode(self, packed: Tensor) -> Tensor:
        """The filled mask back."""
        ...


def rows_of(weight: Tensor) -> Tensor:
    """A linear's [K, C] as it is; a convolution's [K, C, R, S] as rows (R, S, K) of input channels [R*S*K, C]."""
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
