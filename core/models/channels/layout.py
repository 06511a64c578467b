"""Rules of operations that only move numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.models.channels.calls import Arguments, Calls, Dims

PICKED = "single channels are picked out"


def same(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Shape and order as they were (softmax, a change of type)."""
    return [calls.dims(a["self"])]


def transposed(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """t, transpose, permute."""
    dims = calls.dims(a["self"])
    if "dims" in a:
        return [[dims[d] for d in a["dims"]]]
    first, second = (a["dim0"], a["dim1"]) if "dim0" in a else (0, len(dims) - 1)
    dims = list(dims)
    dims[first], dims[second] = dims[second], dims[first]
    return [dims]


def viewed(calls: Calls, a: Arguments, out: Tensor) -> list[Dims] | None:
    """view, reshape, squeeze, unsqueeze: the same numbers in the same order."""
    if out.numel() != a["self"].numel():
        return None  # the same bytes as numbers of another type
    return [calls.labels.regroup(calls.dims(a["self"]), out.shape)]


def expanded(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """Repeats along dimensions of size 1: in any order they are the same."""
    own: Tensor = a["self"]
    missing = out.dim() - own.dim()
    dims = [()] * missing + calls.dims(own)
    shape = [1] * missing + list(own.shape)
    grown = zip(dims, shape, out.shape, strict=True)
    return [[dim if before == after else calls.labels.fresh(after) for dim, before, after in grown]]


def repeated(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """repeat: whole copies, which are the same in any order."""
    dims = [()] * (out.dim() - a["self"].dim()) + calls.dims(a["self"])
    return [[(*calls.labels.fresh(n), *dim) for n, dim in zip(a["repeats"], dims, strict=True)]]


def constant(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """zeros_like and the like: one number everywhere, which is the same in any order."""
    return [[calls.labels.fresh(n) for n in out.shape]]


def selected(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """select, unbind: one place of a dimension."""
    dims = list(calls.dims(a["self"]))
    calls.freeze([dims.pop(a["dim"])], PICKED)
    return [dims] * (1 if isinstance(out, Tensor) else len(out))


def index_selected(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """Some places of a dimension."""
    dims = list(calls.dims(a["self"]))
    calls.freeze([dims[a["dim"]]], PICKED)
    dims[a["dim"]] = calls.labels.fresh(out.shape[a["dim"]], PICKED)
    return [dims]


def index_copied(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """Some places of a dimension written."""
    dims = list(calls.dims(a["self"]))
    for d, (one, other) in enumerate(zip(dims, calls.dims(a["source"]), strict=True)):
        if d == a["dim"]:
            calls.freeze([one, other], PICKED)
        else:
            calls.unify(one, other)
    return [dims]


def indexed(calls: Calls, a: Arguments, out: Tensor) -> list[Dims] | None:
    """x[:, indices], with one tensor of indices."""
    places = [d for d, index in enumerate(a["indices"]) if index is not None]
    if len(places) != 1 or a["indices"][places[0]].dtype == torch.bool:
        return None
    dims, (d,) = list(calls.dims(a["self"])), places
    calls.freeze([dims[d]], PICKED)
    n = a["indices"][d].dim()
    return [[*dims[:d], *(calls.labels.fresh(size, PICKED) for size in out.shape[d : d + n]), *dims[d + 1 :]]]


def sliced(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """A run of neighbours."""
    own, d = a["self"], a["dim"]
    n = own.shape[d]
    start, end, step = slice(a["start"], a["end"], a["step"]).indices(n)
    if step != 1:
        return index_selected(calls, a, out)
    bounds = sorted({0, start, end, n})
    dims = list(calls.dims(own))
    dims[d] = calls.labels.cut(dims[d], bounds)[bounds.index(start)]
    return [dims]


def split(calls: Calls, a: Arguments, out: Sequence[Tensor]) -> list[Dims]:
    """split, split_with_sizes, chunk."""
    d, bounds = a["dim"], [0]
    for part in out:
        bounds.append(bounds[-1] + part.shape[d])
    dims = calls.dims(a["self"])
    return [[*dims[:d], piece, *dims[d:][1:]] for piece in calls.labels.cut(dims[d], bounds)]


def gated(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """glu: one half gates the other."""
    d, dims = a["dim"], list(calls.dims(a["self"]))
    dims[d] = calls.unify(*calls.labels.cut(dims[d], [0, out.shape[d], 2 * out.shape[d]]))
    return [dims]


def concatenated(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """cat: one behind the other along one dimension, and the others laid over each other."""
    d = a["dim"] % out.dim()
    inputs = [calls.dims(tensor) for tensor in a["tensors"] if tensor.numel()]
    dims = [calls.unify(*(dims[i] for dims in inputs)) if i != d else () for i in range(out.dim())]
    dims[d] = calls.labels.join([dims[d] for dims in inputs])
    return [dims]


def stacked(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """stack: along a new dimension, which keeps its order."""
    d = a["dim"] % out.dim()
    dims = calls.broadcast(a["tensors"], [n for i, n in enumerate(out.shape) if i != d])
    return [[*dims[:d], calls.labels.fresh(out.shape[d], "tensors are stacked along them"), *dims[d:]]]


def padded(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """Padding with a constant: dimensions that grow keep their order."""
    dims, pads = list(calls.dims(a["self"])), a["pad"]
    for i in range(len(pads) // 2):
        d = len(dims) - 1 - i
        if pads[2 * i] or pads[2 * i + 1]:
            reason = "they are padded"
            calls.freeze([dims[d]], reason)
            dims[d] = calls.labels.fresh(out.shape[d], reason)
    return [dims]
