"""The hard concrete distribution: masks between 0 and 1, often exactly 0 or 1, that gradients can pass through.

Paper: https://arxiv.org/abs/1712.01312 (Louizos et al.), equations 10 to 12; stretched to (-0.1, 1.1), beta = 2/3.
"""

import math

import torch
from torch import Tensor

from core.algorithms.structured.selection import rounded

BETA = 2 / 3
LOW, HIGH = -0.1, 1.1
SETTLED = 0.8  # of CoFi's authors: sharpens the masks that are evaluated
BOUND = math.log(100)  # of CoFi's authors: log alpha stays within, where its gradient does not vanish


def sample(log_alpha: Tensor) -> Tensor:
    """Masks drawn anew, with torch's own generator."""
    uniform = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6)
    return stretched(uniform, log_alpha)


def stretched(uniform: Tensor, log_alpha: Tensor) -> Tensor:
    """The mask of each uniform number in (0, 1): clip(1.2 s - 0.1, 0, 1), s = sigma((logit u + log alpha) / beta)."""
    concrete = ((uniform.logit() + log_alpha) / BETA).sigmoid()
    return (concrete * (HIGH - LOW) + LOW).clamp(0, 1)


def probability_nonzero(log_alpha: Tensor) -> Tensor:
    """P(z > 0) of each mask."""
    return (log_alpha - BETA * math.log(-LOW / HIGH)).sigmoid()


def settled(log_alpha: Tensor, multiple: int = 1) -> Tensor:
    """The masks without chance [n]: the smallest are 0, as many as are expected, others sigma(0.8 log alpha / beta).

    Of those a multiple of `multiple` is left, unless none is.
    """
    n_kept = len(log_alpha) - round(float((1 - probability_nonzero(log_alpha)).sum()))
    n_kept = rounded(n_kept, len(log_alpha), multiple) if n_kept else 0
    soft = (SETTLED * log_alpha / BETA).sigmoid()
    dropped = soft.argsort(stable=True)[: len(soft) - n_kept]
    return soft.index_fill(0, dropped, 0.0)
