"""Which entries of a model's parameters hold the same channels, found by watching the model answer once.

Pool & Yu (2021) walk a torch.fx graph by the kinds of its modules. Here every ATen operation of one real forward pass
is watched instead, so that any model that answers can be looked at. Consumers of one tensor (siblings), and producers
that an addition merges (coparents), come to share their labels by themselves.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.models.channels.calls import Calls, Dims
from core.models.channels.labels import ChannelLabels
from core.models.channels.rules import rule_of
from core.models.channels.slots import Channels, Network, Slot

OUTSIDE = "they come from outside the model's parameters"
OUTPUT = "they are the model's answer"
OVERLAP = "two parameters share part of their memory"

Key = tuple[int, int, tuple[int, ...], tuple[int, ...]]  # storage, offset, shape, strides: the same numbers


class ShapeWatch(TorchDispatchMode, Calls):
    """Labels the dimensions of every tensor that appears while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = ChannelLabels()
        self._dims: dict[Key, Dims] = {}
        self._storages: dict[int, StorageWeakRef] = {}  # held weakly, an address is not given to another one

    def dims(self, tensor: Tensor, reason: str = OUTSIDE) -> Dims:
        """The dimensions of a tensor; where it was not seen before, they are frozen for this reason."""
        fresh = [self.labels.fresh(n, reason) for n in tensor.shape]
        return self._dims.setdefault(self._key(tensor), fresh) if tensor.layout == torch.strided else fresh

    def put(self, tensor: Tensor, dims: Dims) -> None:
        """These are the dimensions of a tensor; laid over those it had."""
        known = self._dims.setdefault(self._key(tensor), dims)
        for one, other in zip(known, dims, strict=True):
            self.unify(one, other)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(out)
        if not made and not func._schema.is_mutable:
            return out  # a number, or a question about the tensor
        rule = rule_of(func) if made and made[0].numel() else None
        found = rule(self, _named(func, args, kwargs or {}), out) if rule is not None else None
        if found is None:
            reason = f"they pass through {func._schema.name.removeprefix('aten::')}, which has no rule here"
            for tensor in [*given, *made]:
                self.freeze(self.dims(tensor, reason), reason)
        else:
            for tensor, dims in zip(made, found, strict=False):
                self.put(tensor, dims)
        return out

    def _key(self, tensor: Tensor) -> Key:
        storage = StorageWeakRef(tensor.untyped_storage())
        self._storages.setdefault(storage.cdata, storage)
        strides = tuple(stride if n > 1 else 0 for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return storage.cdata, int(tensor.storage_offset()), tuple(tensor.shape), strides


def trace_channels(model: nn.Module, answer: Callable[[], Any]) -> Network:
    """The channels of a model in evaluation mode, whose `answer()` runs it once on a small batch."""
    watch = ShapeWatch()
    names, tensors = _state(model)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it does a whole block in one operation
    try:
        for tensor in tensors.values():
            watch.put(tensor, [watch.labels.fresh(n) for n in tensor.shape])
        for name in _overlapping(tensors):
            watch.freeze(watch.dims(tensors[name]), OVERLAP)
        with torch.no_grad(), watch:
            answers = answer()
        for tensor in _tensors(answers):
            watch.freeze(watch.dims(tensor), OUTPUT)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return Network(*_channels(watch, tensors), tensors, names)


def _channels(watch: ShapeWatch, tensors: dict[str, Tensor]) -> tuple[tuple[Channels, ...], dict[tuple[str, int], str]]:
    """The slots of every free label, and why others are frozen."""
    labels = watch.labels
    free: dict[int, list[Slot]] = {}
    frozen: dict[tuple[str, int], str] = {}
    for name, tensor in tensors.items():
        for axis, dim in enumerate(watch.dims(tensor)):
            for label, places in labels.places(dim):
                reason = labels.reason(label)
                if reason is None:
                    free.setdefault(label, []).append(Slot(name, axis, places))
                else:
                    frozen.setdefault((name, axis), reason)
    return tuple(Channels(tuple(slots)) for slots in free.values()), frozen


def _state(model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Parameters and saved buffers: each one's name and the first one's of the same memory; the first ones."""
    names: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    firsts: dict[Any, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.numel():
            place = tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
            names[name] = firsts.setdefault(place, name)
            tensors[names[name]] = tensor
    return names, {name: tensors[name] for name in firsts.values()}


def _overlapping(state: dict[str, Tensor]) -> Iterator[str]:
    """Names of tensors that share part of their memory with another one."""
    spans = sorted((t.untyped_storage()._cdata, *_span(t), name) for name, t in state.items())
    storage, end, name = 0, 0, ""  # of the one that reaches furthest
    for other, start, stop, another in spans:
        if other == storage and start < end:
            yield from (name, another)
        if other != storage or stop > end:
            storage, end, name = other, stop, another


def _span(tensor: Tensor) -> tuple[int, int]:
    start = int(tensor.storage_offset()) * tensor.element_size()
    steps = sum((n - 1) * int(stride) for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (steps + 1) * tensor.element_size()


def _named(func: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """An operation's arguments by the names of its schema, defaults included."""
    named = {argument.name: argument.default_value for argument in func._schema.arguments}
    return {**named, **dict(zip(named, args, strict=False)), **kwargs}


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
