"""AdaRound's soft rounding: each weight between the two codes around it, pushed to one of them by a regularizer.

Paper: https://arxiv.org/abs/2004.10568 (section 3.3). W_q = s (clamp(floor(W / s) + z + h(V), 0, 2^b - 1) - z) with the
rectified sigmoid h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1). V begins where h is the weight's place between its two codes,
so that W_q = W. The regularizer is 1 - |2 h - 1|^beta: 0 at both codes, and flat between them while beta is large.

The loss is the number of weights times the mean squared error of the outputs over that of rounding to nearest, plus the
sum of the regularizer over the weights times its strength. So the balance of the two does not depend on the size of a
layer, nor on the scale of its inputs.
"""

import torch
from torch import Tensor

from core.algorithms.reconstruction.learning import Learning, Packed
from core.algorithms.reconstruction.row_grid import RowGrid
from core.nn.quant_linear import QuantLinear

STRETCH, SHIFT = 1.2, -0.1  # zeta - gamma and gamma: h reaches 0 and 1 at a finite V
WARM_UP = 0.2  # share of the iterations without regularizer
FIRST_BETA, LAST_BETA = 20.0, 2.0
DECIDED = 0.01  # a weight whose h is so near to 0 or 1 has its code


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V) in 0..1."""
    return (STRETCH * torch.sigmoid(v) + SHIFT).clamp(0, 1)


def inverse_rectified_sigmoid(h: Tensor) -> Tensor:
    """The V of an h in 0..1: -ln(1.2 / (h + 0.1) - 1)."""
    return -torch.log(STRETCH / (h - SHIFT) - 1)


def beta_at(share: float) -> float | None:
    """The regularizer's exponent after a share of the iterations: none while warming up, then from 20 to 2."""
    if share < WARM_UP:
        return None
    return FIRST_BETA + (LAST_BETA - FIRST_BETA) * (share - WARM_UP) / (1 - WARM_UP)


class SoftRounding:
    """The soft weights of a layer and the variables V [rows, in] that decide them."""

    def __init__(self, grid: RowGrid):
        self.grid = grid
        position = grid.weight / grid.spread(grid.scale)
        floor = position.floor()
        self.floor = floor + grid.spread(grid.zero_point)
        self.v = inverse_rectified_sigmoid(position - floor).requires_grad_()
        self.size = grid.weight.numel() if grid.mask is None else int(grid.mask.sum())  # weights to decide

    def parameters(self) -> list[Tensor]:
        """What is learned."""
        return [self.v]

    def weight(self) -> Tensor:
        """The soft weights [rows, in]; pruned ones are zero."""
        grid = self.grid
        codes = (self.floor + rectified_sigmoid(self.v)).clamp(0, grid.highest)
        return grid.values(grid.keep_zeros(codes, grid.zero_point), grid.scale, grid.zero_point)

    def undecided(self, beta: float) -> Tensor:
        """The sum of 1 - |2 h - 1|^beta over the weights that are not pruned, a scalar."""
        terms = 1 - (2 * rectified_sigmoid(self.v) - 1).abs().pow(beta)
        return terms.sum() if self.grid.mask is None else (terms * self.grid.mask).sum()

    @torch.no_grad()
    def decided(self) -> int:
        """How many weights have their code already, pruned ones left out."""
        h = rectified_sigmoid(self.v)
        near = (h <= DECIDED) | (h >= 1 - DECIDED)
        return int(near.sum() if self.grid.mask is None else (near & self.grid.mask).sum())

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The codes [rows, in] that V decides for: floor(W / s) + z, or one more where V is 0 or more."""
        codes = (self.floor + (self.v >= 0)).clamp(0, self.grid.highest)
        return self.grid.keep_zeros(codes, self.grid.zero_point)

    @torch.no_grad()
    def hard_weight(self) -> Tensor:
        """The weights [rows, in] of these codes."""
        return self.grid.values(self.codes(), self.grid.scale, self.grid.zero_point)

    def pack(self) -> list[QuantLinear]:
        """The packed layers of these codes, one for each matrix."""
        return self.grid.pack(self.codes(), self.grid.scale, self.grid.zero_point)


def learn_soft_rounding(learning: Learning, *, learning_rate: float, strength: float) -> Packed:
    """The layers after all iterations, each weight rounded to the side that its V is on."""
    soft = {name: SoftRounding(grid) for name, grid in learning.grids.items()}
    size = max(1, sum(own.size for own in soft.values()))
    optimizer = torch.optim.Adam([p for own in soft.values() for p in own.parameters()], lr=learning_rate)
    for step in learning.steps():
        optimizer.zero_grad(set_to_none=True)
        learning.backward(step, lambda: {name: own.weight() for name, own in soft.items()}, size)
        beta = beta_at(step / learning.iterations)
        for own in soft.values():
            if beta is not None:
                with torch.enable_grad():
                    pull = strength * own.undecided(beta)
                pull.backward()
        optimizer.step()
        learning.draw("decided weights", step, sum(own.decided() for own in soft.values()) / size)
    return {name: own.pack() for name, own in soft.items()}
