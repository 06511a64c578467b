"""What the rules of operations know of the tensors that they see."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from core.models.channels.labels import ChannelLabels, Dim

Arguments = dict[str, Any]  # by the names of the operation's schema
Dims = list[Dim]  # of one tensor


class Calls:
    """What rules know: labels, and the dimensions of the tensors seen so far."""

    labels: ChannelLabels

    def dims(self, tensor: Tensor) -> Dims:
        """The dimensions of a tensor; frozen ones where it comes from outside."""
        raise NotImplementedError

    def unify(self, *dims: Dim) -> Dim:
        """Lay dimensions over each other, those of size 1 left out."""
        laid = [dim for dim in dims if self.labels.size(dim) > 1]
        for other in laid[1:]:
            self.labels.unify(laid[0], other)
        return laid[0] if laid else ()

    def freeze(self, dims: Sequence[Dim], reason: str) -> None:
        """The order of these must stay."""
        for dim in dims:
            self.labels.freeze(dim, reason)

    def broadcast(self, tensors: Sequence[Tensor], shape: Sequence[int]) -> Dims:
        """The dimensions of what is computed number by number from `tensors`."""
        columns: list[Dims] = [[] for _ in shape]
        for tensor in tensors:
            dims = self.dims(tensor)
            for column, dim in zip(columns[len(shape) - len(dims) :], dims, strict=True):
                column.append(dim)
        return [self.unify(*column) for column in columns]


Rule = Callable[[Calls, Arguments, Any], list[Dims] | None]  # None: it has no rule after all
