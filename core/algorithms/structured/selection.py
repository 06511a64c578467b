"""Which units stay: exact counts, per layer or over all layers together, rounded as kernels like widths."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.algorithms.masks import keep_largest_together


def rounded(n_kept: float, count: int, multiple: int) -> int:
    """The multiple nearest to `n_kept` (the larger of two), at least one of them and at most `count`."""
    return min(count, max(multiple, int(n_kept / multiple + 0.5) * multiple))


def layer_counts(scores: Mapping[str, Tensor], ratio: float, multiple: int = 1) -> dict[str, int]:
    """How many units of each layer stay when the share `ratio` of every layer goes; at least `multiple` stay."""
    return {name: rounded((1 - ratio) * len(score), len(score), multiple) for name, score in scores.items()}


def global_counts(scores: Mapping[str, Tensor], n_kept: int, multiple: int = 1) -> dict[str, int]:
    """How many units of each layer stay when the `n_kept` largest scores of all layers do; at least `multiple` stay.

    The sum is exactly `n_kept` as far as that rounding allows.
    """
    kept = keep_largest_together({name: _protected(score, multiple) for name, score in scores.items()}, n_kept)
    return {name: rounded(max(1, int(mask.sum())), len(mask), multiple) for name, mask in kept.items()}


def _protected(score: Tensor, at_least: int) -> Tensor:
    """The scores, those of the `at_least` best ones infinite: no layer loses them."""
    first = score.argsort(descending=True, stable=True)[:at_least]
    return score.float().index_fill(0, first, torch.inf)


def best(score: Tensor, n_kept: int) -> Tensor:
    """Indices of the `n_kept` largest scores in ascending order; among equal ones the first."""
    return score.argsort(descending=True, stable=True)[:n_kept].sort().values
