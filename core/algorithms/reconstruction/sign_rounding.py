"""SignRound's offsets: what is added to a weight before it is rounded, and how far the grid's two ends are drawn in.

Paper: https://arxiv.org/abs/2309.05516 (section 3). q = clamp(round(W / s + V) + z, 0, 2^b - 1) with V in [-0.5, 0.5];
s and z are those of the range [alpha * low, beta * high], alpha and beta in [0, 1]. A symmetric grid has one factor for
both ends. Rounding passes gradients straight through. The published code keeps the iteration whose own minibatch had
the smallest error; here the error over all calibration data decides, at ten iterations or fewer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from core.algorithms.reconstruction.learning import Learning, Packed
from core.algorithms.reconstruction.row_grid import RowGrid
from core.nn.quant_linear import QuantLinear

EVALUATIONS = 10


class Offsets(NamedTuple):
    """A copy of what is learned of a layer: V [rows, in], and the factors of both ends [rows, n_groups]."""

    rounding: Tensor
    low: Tensor
    high: Tensor


class SignRounding:
    """The weights of a layer as they are rounded with offsets; all begin as rounding to nearest."""

    def __init__(self, grid: RowGrid, *, learn_range: bool = True):
        self.grid, self.learn_range = grid, learn_range
        self.rounding = torch.zeros_like(grid.weight, requires_grad=True)
        self.low, self.high = (torch.ones_like(grid.scale, requires_grad=learn_range) for _ in range(2))

    def parameters(self) -> list[Tensor]:
        """What is learned."""
        ends = [self.high] if self.grid.symmetric else [self.low, self.high]
        return [self.rounding, *(ends if self.learn_range else [])]

    def weight(self) -> Tensor:
        """The rounded weights [rows, in]; pruned ones are zero. Differentiable by the straight-through estimator."""
        return self.grid.values(*self._quantized())

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move everything by `learning_rate` against the sign of its gradient, and back into its limits."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad.sign(), alpha=learning_rate)
                parameter.grad = None
        self.rounding.clamp_(-0.5, 0.5)
        self.low.clamp_(0, 1)
        self.high.clamp_(0, 1)

    @torch.no_grad()
    def saved(self) -> Offsets:
        """A copy of what has been learned so far."""
        return Offsets(self.rounding.clone(), self.low.clone(), self.high.clone())

    @torch.no_grad()
    def restore(self, offsets: Offsets) -> None:
        """Go back to a copy."""
        for own, copy in zip((self.rounding, self.low, self.high), offsets, strict=True):
            own.copy_(copy)

    @torch.no_grad()
    def pack(self) -> list[QuantLinear]:
        """The packed layers, one for each matrix."""
        return self.grid.pack(*self._quantized())

    def _quantized(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [rows, in], scale and zero point [rows, n_groups]."""
        grid = self.grid
        scale, zero_point = self._range()
        codes = _rounded(grid.weight / grid.spread(scale) + self.rounding) + grid.spread(zero_point)
        return grid.keep_zeros(codes.clamp(0, grid.highest), zero_point), scale, zero_point

    def _range(self) -> tuple[Tensor, Tensor]:
        """The grid between the two ends; the scale is rounded to what it is stored in."""
        grid = self.grid
        if grid.symmetric:
            return self._stored(grid.scale * self.high), grid.zero_point
        below, above = self.low * grid.zero_point, self.high * (grid.highest - grid.zero_point)  # in units of the scale
        share = (below + above) / grid.highest
        zero_point = _rounded(below / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0, grid.highest)
        return self._stored(grid.scale * share), zero_point

    def _stored(self, scale: Tensor) -> Tensor:
        scale = scale.clamp(min=torch.finfo(self.grid.dtype).tiny)
        return _straight_through(scale, scale.to(self.grid.dtype).float())


def _rounded(x: Tensor) -> Tensor:
    """x rounded half to even, with the gradient of x."""
    return _straight_through(x, x.round())


def _straight_through(x: Tensor, changed: Tensor) -> Tensor:
    """`changed`, with the gradient of x."""
    return x + (changed - x).detach()


def learn_offsets(learning: Learning, *, learning_rate: float, learn_range: bool) -> Packed:
    """The layers of the best iteration by the error over all calibration data; the first one is rounding to nearest."""
    layers = {name: SignRounding(grid, learn_range=learn_range) for name, grid in learning.grids.items()}

    def weights() -> dict[str, Tensor]:
        return {name: layer.weight() for name, layer in layers.items()}

    best, least = {name: layer.saved() for name, layer in layers.items()}, learning.nearest_error
    every = max(learning.unit.n_batches, -(-learning.iterations // EVALUATIONS))
    for step in learning.steps():
        learning.backward(step, weights)
        for layer in layers.values():
            layer.step(learning_rate * (1 - step / learning.iterations))
        done = step + 1
        if done % every and done != learning.iterations:
            continue
        error = learning.mean_error(weights())
        if error < least:
            best, least = {name: layer.saved() for name, layer in layers.items()}, error
    for name, layer in layers.items():
        layer.restore(best[name])
    return {name: layer.pack() for name, layer in layers.items()}
