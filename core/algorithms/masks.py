"""Masks (True = kept) with exact counts: which weights may be pruned, and which of them to keep.

Among equal scores the first by index is kept, so that masks are reproducible. Groups of N:M are M consecutive
input channels of one output row; a convolution is seen as rows (R, S, K) of input channels.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.errors import SpecError
from core.models.anatomy import prunable
from core.nn.experts.linear import ExpertLinear
from core.nn.packing import rows_of, weight_from_rows
from core.subject import Subject


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of linear layers, experts' too, and convolutions by full name; embeddings and output heads are left out.

    So are convolutions padded with anything but zeros, which have no packed form. Raises SpecError if none is left.
    """
    names = [
        name
        for name in prunable(model, (nn.Linear, nn.Conv2d, ExpertLinear))
        if getattr(model.get_submodule(name), "padding_mode", "zeros") == "zeros"
    ]
    if not names:
        remedy = "Prune before the steps that pack weights, or choose another model."
        raise SpecError.of("model", type(model).__name__, "has no linear layer or convolution to prune", remedy)
    return {f"{name}.weight": model.get_parameter(f"{name}.weight") for name in names}


def keep_largest(scores: Tensor, n_kept: int) -> Tensor:
    """Mask of exactly the `n_kept` largest scores, shaped like `scores`."""
    return keep_largest_in_rows(scores.reshape(1, -1), n_kept).view_as(scores)


def keep_largest_in_rows(scores: Tensor, n_kept: int) -> Tensor:
    """Mask of exactly the `n_kept` largest of each row of scores [rows, n]."""
    n = scores.shape[1]
    if n_kept <= 0 or n_kept >= n:
        return torch.full_like(scores, n_kept > 0, dtype=torch.bool)
    threshold = scores.kthvalue(n - n_kept + 1, dim=1, keepdim=True).values
    above, equal = scores > threshold, scores == threshold
    wanted = n_kept - above.sum(dim=1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=1) <= wanted))


def keep_largest_together(scores: Mapping[str, Tensor], n_kept: int) -> dict[str, Tensor]:
    """Masks of exactly the `n_kept` largest of all scores, by name and shaped like each."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    parts = keep_largest(flat, n_kept).split([score.numel() for score in scores.values()])
    return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """Mask of the `n` largest scores in every `m` consecutive input channels, shaped like `scores`.

    Scores are those of a weight [K, C] or [K, C, R, S], C divisible by `m`.
    """
    rows = rows_of(scores)
    groups = rows.reshape(-1, m)  # [n_groups, m]
    slots = groups.t().contiguous()  # [m, n_groups]: long vectors, several times faster than sorting short groups
    before = torch.zeros_like(slots, dtype=torch.uint8)  # how many of its group come before each
    for i in range(m):
        for j in range(i + 1, m):
            first = slots[i] >= slots[j]
            before[j] += first
            before[i] += ~first
    kept = (before < n).t().reshape(rows.shape)
    return weight_from_rows(kept, scores.shape)


def check_pattern(model: nn.Module, n: int, m: int, indivisible: Literal["refuse", "skip"]) -> None:
    """Raise SpecError if N:M is not a valid pattern, or a layer's input channels cannot be grouped in `m`."""
    if n >= m:
        raise SpecError.of("n", n, f"must be less than m, which is {m}", f"Choose a number from 1 to {m - 1}.")
    if indivisible == "skip":
        return
    for name, weight in prunable_weights(model).items():
        if weight.shape[1] % m:
            layer = name.removesuffix(".weight")
            message = f"does not divide the {weight.shape[1]} input channels of {layer}"
            raise SpecError.of("m", m, message, "Choose an m that divides them, or set indivisible: skip.")


def divisible_weights(model: nn.Module, m: int) -> dict[str, nn.Parameter]:
    """The prunable weights whose input channels can be grouped in `m`."""
    return {name: weight for name, weight in prunable_weights(model).items() if weight.shape[1] % m == 0}


def sparsity_by_layer(subject: Subject) -> list[dict[str, Any]]:
    """A row for each layer that may be pruned: name, shape, weights, and the share that its mask zeroes."""
    rows = []
    for name, weight in prunable_weights(subject.model).items():
        mask = subject.mask(name)
        sparsity = 0.0 if mask is None else 1 - float(mask.float().mean())
        layer = name.removesuffix(".weight")
        rows.append({"name": layer, "shape": list(weight.shape), "weights": weight.numel(), "sparsity": sparsity})
    return rows
