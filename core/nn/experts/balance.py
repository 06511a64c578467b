"""How evenly experts are used: the losses that keep them so, and what a router was seen to do.

Papers: https://arxiv.org/abs/1701.06538 (importance and load), https://arxiv.org/abs/2101.03961 (Switch, section 2.2).
"""

import math

import torch
from torch import Tensor

SMALLEST = 1e-10


def squared_variation(x: Tensor) -> Tensor:
    """Squared coefficient of variation of x [experts], with the population's variance."""
    return x.var(correction=0) / (x.mean().square() + SMALLEST)


def probability_in_top_k(clean: Tensor, noisy: Tensor, sigma: Tensor, k: int) -> Tensor:
    """How likely each expert would be among the k chosen if its noise alone were drawn again.

    Clean and noisy logits and the noise's standard deviation, [..., experts] each, k < experts. An expert is chosen
    where it exceeds the k-th largest of the others: for one of the k chosen that is the (k+1)-th of all.
    """
    largest = noisy.topk(k + 1, dim=-1).values
    among, beyond = largest[..., k - 1 : k], largest[..., k:]
    threshold = torch.where(noisy >= among, beyond, among)
    return torch.special.ndtr((clean - threshold) / sigma)


def load_balancing_loss(shares: Tensor, probabilities: Tensor) -> Tensor:
    """experts * sum(share * probability), [..., experts] each -> [...]: 1 where both are uniform.

    `shares` is how many of the tokens chose each expert, before any was dropped, `probabilities` the router's mean.
    """
    return shares.shape[-1] * (shares * probabilities).sum(-1)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of [..., experts] as a share of the uniform distribution's: [...]."""
    return torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])
