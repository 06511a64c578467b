"""The best move of every window of stripes and its gain, and which of them go together."""

from itertools import permutations

import torch
from torch import Tensor


class Ranking:
    """Gain and choice of one of `orders` [count, w * m] for each window of w among `n_stripes`.

    A window stands where it was computed, [u, v] or [v, u], with its stripes in that order; other entries are -inf.
    """

    def __init__(self, n_stripes: int, orders: Tensor, m: int):
        self.orders = orders
        moved = orders != torch.arange(orders.shape[1], device=orders.device)
        self.changed = moved.unflatten(1, (-1, m)).any(dim=2)  # [count, w]: which stripes of a window an order changes
        self.width = self.changed.shape[1]
        shape = (n_stripes,) * self.width
        self.gains = torch.full(shape, -torch.inf, device=orders.device)
        self.choices = torch.zeros(shape, dtype=torch.int32, device=orders.device)

    def forget(self, touched: Tensor) -> None:
        """Drop every window that holds one of these stripes."""
        for axis in range(self.width):
            self.gains.index_fill_(axis, touched, -torch.inf)

    def put(self, stripes: tuple[Tensor, ...], gains: Tensor, choices: Tensor) -> None:
        """Set the windows of the product of these stripes, one vector an axis."""
        mesh = torch.meshgrid(*stripes, indexing="ij")
        self.gains[mesh] = gains
        self.choices[mesh] = choices.int()

    def set_gains(self, windows: Tensor, gains: Tensor) -> None:
        """Correct the gains of windows [j, w]."""
        self.gains[windows.unbind(1)] = gains.float()

    def forbid(self, stripes: Tensor) -> None:
        """Leave out the windows that hold all of these stripes, until they are put again."""
        for axes in permutations(range(self.width), len(stripes)):
            place: list[slice | int] = [slice(None)] * self.width
            for axis, stripe in zip(axes, stripes.tolist(), strict=True):
                place[axis] = stripe
            self.gains[tuple(place)] = -torch.inf

    @property
    def best(self) -> float:
        """The best gain of all."""
        return float(self.gains.max())

    def choice(self, windows: Tensor) -> Tensor:
        """Indices of the chosen orders [j] of windows [j, w]."""
        return self.choices[windows.unbind(1)].long()

    def compatible(self, threshold: float) -> Tensor:
        """Windows [j, w] by falling gain above the threshold, each without a stripe that one before it changes."""
        windows = (self.gains > threshold).nonzero()
        windows = windows[self.gains[windows.unbind(1)].argsort(descending=True, stable=True)]
        changed = self.changed[self.choice(windows)]
        used: set[int] = set()
        taken = []
        for i, (window, moves) in enumerate(zip(windows.tolist(), changed.tolist(), strict=True)):
            if used.isdisjoint(window):
                used.update(stripe for stripe, moved in zip(window, moves, strict=True) if moved)
                taken.append(i)
        return windows[taken]

    def random(self, generator: torch.Generator) -> Tensor:
        """One window [1, w], each with the same chance."""
        windows = self.gains.isfinite().nonzero()
        return windows[draw(len(windows), generator)][None]


def draw(n: int, generator: torch.Generator) -> int:
    """An integer from 0 to n - 1."""
    return int(torch.randint(n, (), generator=generator, device=generator.device))
