"""What N:M keeps of stripes that are put together from two parts, for all pairs of parts at once.

With the parts' values sorted, the n largest of a ∪ b are max(a_i, b_{n+1-i}), i = 1 … n (the first step of a bitonic
merge; what a part lacks counts as 0). So each pair costs one maximum and one sum over rows for each i that both parts
have, and all other terms are sums of one part.
"""

import torch
from torch import Tensor

IN_CACHE = 2**18  # elements of a buffer that stays in the caches of a CPU
ON_DEVICE = 2**26  # and one that keeps an accelerator busy


def sums_of_maxima(left: Tensor, right: Tensor) -> Tensor:
    """Σ over rows of max(left, right) for all pairs: from [a, K] and [b, K] to [a, b]."""
    n_rows = left.shape[1]
    room = max((IN_CACHE if left.device.type == "cpu" else ON_DEVICE) // n_rows, 1)  # pairs in the buffer
    step_b = min(len(right), room)
    step_a = min(len(left), room // step_b)
    found = left.new_empty(len(left), len(right))
    buffer = left.new_empty(step_a * step_b * n_rows)
    for b in range(0, len(right), step_b):
        some = right[b : b + step_b]
        for a in range(0, len(left), step_a):
            part = left[a : a + step_a]
            maxima = buffer[: len(part) * some.numel()].view(len(part), len(some), n_rows)
            torch.maximum(part[:, None], some[None], out=maxima)
            torch.sum(maxima, dim=2, out=found[a : a + step_a, b : b + step_b])
    return found


def union_sums(left: list[Tensor], right: list[Tensor], n: int) -> Tensor:
    """Sum over rows of the `n` largest of each union, from parts in falling order, [i, a, K] and [j, b, K].

    Answers [i * j, a, b]. Together the parts hold at least `n` values.
    """
    (i, a, _), (j, b, _) = left[0].shape, right[0].shape
    total = left[0].new_zeros(i, a, j, b)
    for rank, part in enumerate(left):
        other = n - 1 - rank
        if other >= len(right):
            total += part.sum(dim=2)[:, :, None, None]
        elif other >= 0:
            total += sums_of_maxima(part.flatten(0, 1), right[other].flatten(0, 1)).view(i, a, j, b)
    for rank, part in enumerate(right):
        if n - 1 - rank >= len(left):
            total += part.sum(dim=2)
    return total.permute(0, 2, 1, 3).reshape(i * j, a, b)
