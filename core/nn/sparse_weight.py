"""The base of layers with packed sparse weights: values in order, positions in the smallest layout."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from core.nn.packing import Layout, make_layout, rows_of, smallest_layout, weight_from_rows
from core.nn.packing.layout import matrix_shape
from core.nn.replacement import Replacement, WeightCount


class SparseWeight(Replacement):
    """Base of a layer whose weight is stored as `values` and the encoded positions `places`.

    Layouts group consecutive input channels: see `rows_of` for convolutions. Kept weights that happen to be zero are
    stored too.
    """

    values: Tensor  # [n_values], row by row
    places: Tensor  # uint8 [n_bytes]

    def __init__(
        self,
        shape: Sequence[int],
        layout: str,
        *,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        dtype: str = "float32",
    ):
        super().__init__()
        self.shape = torch.Size(shape)
        self.layout: Layout = make_layout(layout, *matrix_shape(shape), nnz=nnz, n=n, m=m)
        self.register_buffer("values", torch.zeros(self.layout.n_values, dtype=getattr(torch, dtype)))
        self.register_buffer("places", torch.zeros(self.layout.n_bytes, dtype=torch.uint8))
        self._laid_out: Tensor | None = None  # set by `prepare`; never saved or copied

    @staticmethod
    def layout_arguments(weight: Tensor, mask: Tensor) -> dict[str, Any]:
        """The arguments of the constructor that store this weight in the fewest bytes."""
        layout = smallest_layout(rows_of(mask), weight.element_size())
        return {**layout.arguments(), "dtype": str(weight.dtype).removeprefix("torch.")}

    @torch.no_grad()
    def store(self, weight: Tensor, mask: Tensor) -> None:
        """Store the values of `weight` where `mask` is True."""
        stored = self.layout.fill(rows_of(mask.bool()))
        self.values = rows_of(weight * mask).masked_select(stored)
        self.places = self.layout.encode(stored)

    def weight(self) -> Tensor:
        """The weight, zeros included, in its own shape."""
        rows = self.values.new_zeros(matrix_shape(self.shape))
        rows.masked_scatter_(self.layout.decode(self.places), self.values)
        return weight_from_rows(rows, self.shape)

    def prepare(self) -> None:
        """Keep the weight unpacked: without a kernel, execution takes as much memory as the dense layer."""
        self._laid_out = self.weight()

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def count(self) -> WeightCount:
        return WeightCount(
            weights=self.shape.numel(),
            nonzeros=self.layout.n_values if self.values.is_meta else int(torch.count_nonzero(self.values)),
            bits=8.0 * self.values.element_size(),
        )

    def stored_arguments(self) -> dict[str, Any]:
        """The part of `arguments` that describes how the weight is stored."""
        return {**self.layout.arguments(), "dtype": str(self.values.dtype).removeprefix("torch.")}

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.arguments().items())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._laid_out = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_laid_out": None}
