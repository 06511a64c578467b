"""Which dimensions of which tensors hold the same channels in the same order.

A dimension is a product of labels, as `flatten` makes them (channels x height x width); () is one of size 1. A label
may turn out to be itself a product (a `view` split it into heads) or a row of parts (`cat`, `chunk`). Two dimensions
that an operation lays over each other are unified, as the terms of a logic program are. A label is frozen where an
operation depends on the order of its channels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

Dim = tuple[int, ...]


class ChannelLabels:
    """Labels, what they are made of, and which of them are frozen, and why."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._reasons: list[str | None] = []  # why a label is frozen
        self._products: dict[int, Dim] = {}
        self._parts: dict[int, list[Dim]] = {}

    def fresh(self, size: int, reason: str | None = None) -> Dim:
        """A separate dimension; frozen if there is a reason."""
        if size == 1:
            return ()
        self._sizes.append(size)
        self._reasons.append(reason)
        return (len(self._sizes) - 1,)

    def size(self, dim: Dim) -> int:
        """Entries of a dimension."""
        return prod(self._sizes[label] for label in dim)

    def reason(self, label: int) -> str | None:
        """Why a leaf is frozen; None if it is not."""
        return self._reasons[label]

    def leaves(self, dim: Dim) -> Dim:
        """The labels of a dimension that are not products themselves."""
        found: list[int] = []
        for label in dim:
            found += self.leaves(self._products[label]) if label in self._products else (label,)
        return tuple(found)

    def freeze(self, dim: Dim, reason: str) -> None:
        """The order of these channels must stay; the first reason is kept."""
        for label in self.leaves(dim):
            if self._reasons[label] is None:
                self._reasons[label] = reason
                for part in self._parts.get(label, ()):
                    self.freeze(part, reason)

    def unify(self, one: Dim, other: Dim) -> None:
        """Two dimensions of one size hold the same channels; frozen where they are divided differently."""
        one, other = self.leaves(one), self.leaves(other)
        if one == other:
            return
        assert self.size(one) == self.size(other), "dimensions of different sizes cannot hold the same channels"
        if len(one) == 1 and one[0] not in self._parts:
            self._bind(one[0], other)
        elif len(other) == 1 and other[0] not in self._parts:
            self._bind(other[0], one)
        elif len(one) == len(other) == 1:
            self._unify_parts(one[0], other[0])
        else:
            self._unify_products(one, other)

    def regroup(self, dims: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
        """The same entries in row-major order as dimensions of other sizes (`view`); frozen where that mixes them."""
        before = [label for dim in dims for label in self.leaves(dim)]
        rest, after = list(before), []
        for size in sizes:
            taken: list[int] = []
            while self.size(tuple(taken)) < size and rest:
                label = self._take(rest, size // self.size(tuple(taken)))
                if label is None:
                    break
                taken.append(label)
            if self.size(tuple(taken)) != size:
                reason = "a view divides them in another way"
                self.freeze(tuple(before), reason)
                return [self.fresh(size, reason) for size in sizes]
            after.append(tuple(taken))
        return after

    def cut(self, dim: Dim, bounds: Sequence[int]) -> list[Dim]:
        """The parts between ascending bounds, the first 0 and the last the size (`chunk`, a slice)."""
        leaves = self.leaves(dim)
        if len(bounds) == 2:
            return [dim]
        if len(leaves) != 1 or not all(self._cut_at(leaves[0], bound) for bound in bounds):
            reason = "a slice cuts through them"
            self.freeze(dim, reason)
            return [self.fresh(end - start, reason) for start, end in pairwise(bounds)]
        pieces: list[list[Dim]] = [[] for _ in bounds[1:]]
        place = piece = 0
        for part in self._flat(leaves[0]):
            while place >= bounds[piece + 1]:
                piece += 1
            pieces[piece].append(part)
            place += self.size(part)
        return [self.join(parts) if parts else self.fresh(0) for parts in pieces]

    def join(self, parts: Sequence[Dim]) -> Dim:
        """One dimension with these behind each other (`cat`)."""
        if len(parts) == 1:
            return parts[0]
        dim = self.fresh(sum(map(self.size, parts)))
        self._parts[dim[0]] = list(parts)
        return dim

    def places(self, dim: Dim) -> Iterator[tuple[int, Tensor]]:
        """Each label in a dimension with the places of its channels there, int64 [copies, size of the label]."""
        yield from self._places(dim, torch.arange(self.size(dim))[None])

    def _places(self, dim: Dim, places: Tensor) -> Iterator[tuple[int, Tensor]]:
        leaves = self.leaves(dim)
        grid = places.view(len(places), *(self._sizes[label] for label in leaves))
        for axis, label in enumerate(leaves, start=1):
            own = grid.movedim(axis, -1).flatten(0, -2)  # [copies, size]
            if label not in self._parts:
                yield label, own
                continue
            start = 0
            for part in self._parts[label]:
                end = start + self.size(part)
                yield from self._places(part, own[:, start:end])
                start = end

    def _bind(self, label: int, dim: Dim) -> None:
        self._products[label] = dim
        reason = self._reasons[label]
        if reason is not None:
            self.freeze(dim, reason)

    def _take(self, rest: list[int], size: int) -> int | None:
        """The first label of `rest`, or a first factor of it, whose size divides `size`; None if there is none."""
        first = rest.pop(0)
        rest[:0] = self.leaves((first,))  # it may have been split since
        label = rest.pop(0)
        own = self._sizes[label]
        if size % own == 0:
            return label
        halves = self._split(label, size)
        if halves is None:
            return None
        rest.insert(0, halves[1])
        return halves[0]

    def _split(self, label: int, outer: int) -> tuple[int, int] | None:
        own = self._sizes[label]
        if label in self._parts or own % outer or outer == 1:
            return None
        reason = self._reasons[label]
        halves = (*self.fresh(outer, reason), *self.fresh(own // outer, reason))
        self._products[label] = halves
        return halves[0], halves[1]

    def _unify_products(self, one: Dim, other: Dim) -> None:
        left, right, pairs = list(one), list(other), []
        while left:
            a, b = left[0], right[0]
            size = min(self._sizes[a], self._sizes[b])
            first, second = self._take(left, size), self._take(right, size)
            if first is None or second is None:
                reason = "they are divided in two ways"
                self.freeze(one, reason)
                self.freeze(other, reason)
                return
            pairs.append((first, second))
        for first, second in pairs:
            self.unify((first,), (second,))

    def _unify_parts(self, one: int, other: int) -> None:
        for label, bounds in ((one, self._bounds(other)), (other, self._bounds(one))):
            for bound in bounds:
                self._cut_at(label, bound)
        if self._bounds(one) != self._bounds(other):  # a product lies across a border, or they overlap each other
            reason = "they are put together in two ways"
            self.freeze((one,), reason)
            self.freeze((other,), reason)
            return
        for first, second in zip(self._flat(one), self._flat(other), strict=True):
            self.unify(first, second)

    def _flat(self, label: int) -> list[Dim]:
        """The parts of a label, none of them made of parts; itself where it has none."""
        if label not in self._parts:
            return [(label,)]
        found: list[Dim] = []
        for part in self._parts[label]:
            leaves = self.leaves(part)
            found += self._flat(leaves[0]) if len(leaves) == 1 else [leaves]
        return found

    def _bounds(self, label: int) -> list[int]:
        bounds = [0]
        for part in self._flat(label):
            bounds.append(bounds[-1] + self.size(part))
        return bounds

    def _cut_at(self, label: int, bound: int) -> bool:
        """Make `bound` a border between two parts; False if a product lies across it."""
        if bound in (0, self._sizes[label]):
            return True
        if label not in self._parts:
            reason = self._reasons[label]
            self._parts[label] = [self.fresh(bound, reason), self.fresh(self._sizes[label] - bound, reason)]
            return True
        for part, start in zip(self._flat(label), self._bounds(label), strict=False):
            if start < bound < start + self.size(part):
                return len(part) == 1 and self._cut_at(part[0], bound - start)
        return True
