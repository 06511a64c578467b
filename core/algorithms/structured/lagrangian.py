"""Holding the expected size of a model to a target while its masks are learned.

As CoFi does (https://arxiv.org/abs/2204.00408, section 3.1), after https://arxiv.org/abs/1910.04732.
"""

from torch import Tensor


def lagrangian(sparsity: Tensor, target: float, multipliers: Tensor) -> Tensor:
    """lambda1 (s - t) + lambda2 (s - t)^2: the weights go down on it and the multipliers [2] up."""
    excess = sparsity - target
    return multipliers[0] * excess + multipliers[1] * excess.square()


def ramp(progress: float, start: float, length: float, final: float) -> float:
    """The target after this share of the training: 0 until `start`, then rising linearly for `length` of it."""
    return final * min(1.0, max(0.0, progress - start) / length) if length else final * (progress >= start)
