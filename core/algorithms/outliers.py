"""How far the largest weights and activations of a layer stick out, and histograms of both.

A uniform grid spends its levels on the range, so a few large values make it coarse for all others (LLM.int8,
https://arxiv.org/abs/2208.07339, section 4). The outlier ratio is the largest magnitude over the root mean square:
about 4 for a normal distribution of some ten thousand values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.allocation.histograms import BINS, REACH


class Profile(NamedTuple):
    """Of many values: their number, root mean square, largest magnitude, and counts in equal bins over ± REACH RMS."""

    number: int
    rms: float
    largest: float
    histogram: list[int]

    @property
    def outlier_ratio(self) -> float:
        """The largest magnitude over the root mean square."""
        return self.largest / self.rms if self.rms > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for the run page."""
        return {"rms": self.rms, "outlier_ratio": self.outlier_ratio, "histogram": self.histogram}


def profile_of(values: Tensor) -> Profile:
    """The profile of all values of a tensor."""
    statistic = InputProfile()
    statistic.add(values.reshape(1, 1, -1))
    return joined(statistic.value)


class InputProfile:
    """The profile of vectors that enter a layer, as a statistic of `core.calibration`.

    The bins are laid by the root mean square of the first vectors, so that one pass is enough.
    """

    def __init__(self) -> None:
        self.count = 0
        self._scale: Tensor | None = None  # [groups]
        self._sums: Tensor | None = None  # [groups, 3 + BINS]: number, squares, largest, histogram; float64

    def add(self, rows: Tensor) -> None:
        """Take in further vectors [groups, n, d]."""
        if not rows.numel():
            return
        self.count += rows.shape[1]
        values = rows.flatten(1).float()
        if self._scale is None:
            self._scale = values.square().mean(dim=1).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        places = (values / self._scale[:, None]).nan_to_num().clamp(-REACH, REACH)
        bins = ((places + REACH) * (BINS / (2 * REACH))).long().clamp_(max=BINS - 1)
        counts = torch.stack([torch.bincount(row, minlength=BINS) for row in bins]).double()
        number = torch.full_like(self._scale, values.shape[1]).double()
        squares, largest = values.double().square().sum(dim=1), values.abs().amax(dim=1).double()
        new = torch.cat([torch.stack([number, squares, largest], dim=1), counts], dim=1)
        if self._sums is not None:
            new[:, 2] = torch.maximum(new[:, 2], self._sums[:, 2])
            new[:, [0, 1]] += self._sums[:, [0, 1]]
            new[:, 3:] += self._sums[:, 3:]
        self._sums = new

    @property
    def value(self) -> Tensor:
        """[groups, 3 + BINS], for `joined`."""
        assert self._sums is not None, "no calibration input was recorded"
        return self._sums

    def alike(self, d: int) -> Tensor:
        """Nothing was seen: [1, 3 + BINS]."""
        return torch.zeros(1, 3 + BINS, dtype=torch.float64)


def joined(sums: Tensor) -> Profile:
    """The profile of all groups (or experts) together, from `InputProfile.value` [groups, 3 + BINS]."""
    number, squares = float(sums[:, 0].sum()), float(sums[:, 1].sum())
    histogram = [int(count) for count in sums[:, 3:].sum(dim=0).tolist()]
    rms = (squares / number) ** 0.5 if number else 0.0
    return Profile(int(number), rms, float(sums[:, 2].max()), histogram)
