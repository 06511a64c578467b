"""Rules of operations that compute."""

from typing import Any

from torch import Tensor

from core.models.channels.calls import Arguments, Calls, Dims


def pointwise(calls: Calls, a: Arguments, out: Any) -> list[Dims] | None:
    """Each number from those at its place."""
    tensors = [value for value in a.values() if isinstance(value, Tensor)]
    return [calls.broadcast(tensors, out.shape)] if isinstance(out, Tensor) else None


def multiplied(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """mm, addmm, bmm, baddbmm: summed over the channels that both have."""
    left, right = (calls.dims(factor) for factor in _factors(a))
    calls.unify(left[-1], right[-2])
    batch = [calls.unify(x, y) for x, y in zip(left[:-2], right[:-2], strict=True)]
    dims = [*batch, left[-2], right[-1]]
    if "beta" in a:
        for own, dim in zip(reversed(calls.dims(a["self"])), reversed(dims), strict=False):
            calls.unify(own, dim)
    return [dims]


def _factors(a: Arguments) -> tuple[Tensor, Tensor]:
    if "batch1" in a:
        return a["batch1"], a["batch2"]
    return a["mat1" if "mat1" in a else "self"], a["mat2"]


def convolved(calls: Calls, a: Arguments, out: Tensor) -> list[Dims] | None:
    """Convolutions; in a grouped one all groups share the order within a group (depthwise: one channel a group)."""
    x, weight, labels = calls.dims(a["input"]), calls.dims(a["weight"]), calls.labels
    place = "a convolution slides over them"
    calls.freeze([*x[2:], *weight[2:]], place)
    groups, swapped = a["groups"], a["transposed"]
    if groups > 1 and swapped:
        return None
    inner, outer = (weight[0], weight[1]) if swapped else (weight[1], weight[0])
    channels = outer
    if groups == 1:
        calls.unify(x[1], inner)
    else:
        x_group, x_channel = labels.regroup([x[1]], [groups, labels.size(x[1]) // groups])
        group, channel = labels.regroup([outer], [groups, labels.size(outer) // groups])
        calls.unify(x_channel, inner)
        channels = (*labels.leaves(calls.unify(x_group, group)), *channel)
    if a.get("bias") is not None:
        calls.unify(channels, *calls.dims(a["bias"]))
    return [[x[0], channels, *(labels.fresh(n, place) for n in out.shape[2:])]]


def over_space(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Pooling and resampling: batch and channels pass, places do not."""
    first: Tensor = out if isinstance(out, Tensor) else out[0]
    x, place = calls.dims(a["self"] if "self" in a else a["input"]), "places are pooled"
    calls.freeze(x[-2:], place)
    dims = [*x[:-2], *(calls.labels.fresh(n, place) for n in first.shape[-2:])]
    return [dims] * (1 if isinstance(out, Tensor) else len(out))


def batch_normed(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Batch normalization: scale, shift and statistics a channel."""
    x = calls.dims(a["input"])
    for key in ("weight", "bias", "running_mean", "running_var"):
        if a.get(key) is not None:
            calls.unify(x[1], *calls.dims(a[key]))
    return [x]


def layer_normed(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Layer normalization and RMSNorm over the last dimensions: the same in any order, with their scale and shift."""
    x = calls.dims(a["input"])
    for key in ("weight", "bias"):
        if a.get(key) is not None:
            own = calls.dims(a[key])
            for dim, other in zip(x[len(x) - len(own) :], own, strict=True):
                calls.unify(dim, other)
    return [x]


def embedded(calls: Calls, a: Arguments, out: Tensor) -> list[Dims]:
    """Rows looked up by number."""
    rows, channels = calls.dims(a["weight"])
    calls.freeze([rows], "rows are looked up by number")
    return [[*calls.dims(a["indices"]), channels]]


def reduced(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Sums, means and the like: the same in any order."""
    x = calls.dims(a["self"])
    given = a.get("dim")
    gone = range(len(x)) if given is None or given == [] else [given] if isinstance(given, int) else given
    gone = {d % len(x) for d in gone} if x else set()
    kept = [() if d in gone else dim for d, dim in enumerate(x) if d not in gone or a.get("keepdim")]
    return [kept] * (1 if isinstance(out, Tensor) else len(out))


def attended(calls: Calls, a: Arguments, out: Any) -> list[Dims]:
    """Scaled dot product attention of q [B, H, T, E], k [B, H, S, E] and v [B, H, S, D]: [B, H, T, D].

    Where a kernel lets several queries share a key and a value (GQA), heads stay where they are.
    """
    q, k, v = (calls.dims(a[key]) for key in ("query", "key", "value"))
    calls.freeze([q[2], k[2], v[2]], "they are tokens")
    batch, heads = calls.unify(q[0], k[0], v[0]), q[1]
    sizes = {calls.labels.size(dims[1]) for dims in (q, k, v)}
    if len(sizes) == 1:
        calls.unify(q[1], k[1], v[1])
    else:
        calls.freeze([q[1], k[1], v[1]], "heads share keys and values")
    calls.unify(q[3], k[3])
    bias = next((a[key] for key in ("attn_mask", "attn_bias") if a.get(key) is not None), None)
    if bias is not None:
        for own, dim in zip(reversed(calls.dims(bias)), (k[2], q[2], heads, batch), strict=False):
            calls.unify(own, dim)
    return [[batch, heads, q[2], v[3]]]
