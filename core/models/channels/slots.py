"""Channels that a model computes, and every place in its parameters that must move when their order changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Slot:
    """Where channels lie along one axis of a parameter or buffer."""

    name: str
    axis: int
    places: Tensor  # int64 [copies, C], on the CPU

    def permute_(self, tensor: Tensor, permutation: Tensor) -> None:
        """Put the channels of the tensor that is called `name` into another order: new[i] = old[permutation[i]]."""
        order = torch.arange(tensor.shape[self.axis])
        order[self.places] = self.places[:, permutation]
        tensor.copy_(tensor.index_select(self.axis, order.to(tensor.device)))

    def in_runs_of(self, m: int) -> bool:
        """Each copy is one run of neighbours that begins and ends at multiples of `m`."""
        first = self.places[:, :1]
        run = first + torch.arange(self.places.shape[1])
        return self.places.shape[1] % m == 0 and bool((first % m == 0).all()) and torch.equal(run, self.places)

    def fills_groups_of(self, m: int) -> bool:
        """Every `m` neighbours belong to one channel, so that the channels' order does not change what N:M keeps."""
        copies = self.places.t().sort(dim=1).values  # [C, copies]
        if copies.shape[1] % m:
            return False
        groups = copies.unflatten(1, (-1, m))
        return bool((groups[..., :1] % m == 0).all()) and bool((groups.diff(dim=2) == 1).all())


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels that share one order: all producers, all consumers, and what lies between."""

    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """How many channels there are."""
        return self.slots[0].places.shape[1]

    def at(self, name: str, axis: int) -> list[Slot]:
        """The slots on one axis of a parameter."""
        return [slot for slot in self.slots if (slot.name, slot.axis) == (name, axis)]

    @torch.no_grad()
    def permute_(self, tensors: Mapping[str, Sequence[Tensor]], permutation: Tensor) -> None:
        """Put the channels into another order: new[i] = old[permutation[i]].

        `tensors` are those to change by name: a parameter, and what has one entry for each of its weights.
        """
        order = permutation.cpu()
        for slot in self.slots:
            for tensor in tensors[slot.name]:
                slot.permute_(tensor, order)


@dataclass(frozen=True, eq=False)
class Network:
    """The channels of a model whose order is free, and why others must stay, by parameter and axis.

    Of parameters that share their memory only the first is named; `tensors` holds each once.
    """

    channels: tuple[Channels, ...]
    frozen: Mapping[tuple[str, int], str]
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]  # each parameter's, and the first one's that shares its memory
