"""What calibration keeps of a layer's inputs to choose a static range for them: extremes, and a sample of vectors."""

import torch
from torch import Tensor

EMA_WEIGHT = 0.1  # of a new batch in the moving averages
SAMPLE = 2**18  # numbers kept of a layer's inputs, as whole vectors


class ActivationValues:
    """The extremes of all inputs, moving averages of each batch's extremes, and every k-th input vector.

    Vectors are kept whole, so that every channel is in the sample. When the sample is full, every other vector of it
    is dropped and k doubles.
    """

    def __init__(self) -> None:
        self.count = 0
        self.extremes = torch.zeros(0)  # lowest and highest, [2]
        self.averages = torch.zeros(0)
        self.channels = torch.zeros(0)  # the extremes of each channel, [2, d]
        self._kept: list[Tensor] = []
        self._stride = 1

    def add(self, rows: Tensor) -> None:
        """Take in further vectors [groups, n, d]."""
        if not rows.numel():
            return
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32)).flatten(0, 1)
        low, high = rows.amin(0), rows.amax(0)
        found = torch.stack([low.amin(), high.amax()])
        if self.count:
            low, high = torch.minimum(low, self.channels[0]), torch.maximum(high, self.channels[1])
            self.averages = torch.lerp(self.averages, found, EMA_WEIGHT)
        else:
            self.averages = found
        self.channels = torch.stack([low, high])
        self.extremes = torch.stack([low.amin(), high.amax()])
        self._keep(rows)
        self.count += len(rows)

    @property
    def sample(self) -> Tensor:
        """Vectors [n, d], evenly spread over all."""
        assert self._kept, "no calibration input was recorded"
        return torch.cat(self._kept)

    @property
    def value(self) -> Tensor:
        """The extremes [1, 2]."""
        assert self.count, "no calibration input was recorded"
        return self.extremes[None]

    def alike(self, d: int) -> Tensor:
        """The range [1, 2] of one step on both sides."""
        return torch.tensor([[-1.0, 1.0]])

    def _keep(self, rows: Tensor) -> None:
        first = -self.count % self._stride
        self._kept.append(rows[first :: self._stride].clone())
        capacity = max(256, SAMPLE // rows.shape[1])
        while sum(map(len, self._kept)) > capacity:
            self._kept = [self.sample[::2]]
            self._stride *= 2
