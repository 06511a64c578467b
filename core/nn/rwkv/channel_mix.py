"""RWKV's feed-forward network: squared ReLU, gated by a sigmoid, on shifted tokens.

Paper: https://arxiv.org/abs/2305.13048, equation 18.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.rwkv.mixing import Place, orthogonal_, ramp


class ChannelMix(nn.Module):
    """sigmoid(receptance(x)) * value(relu(key(x)) ** 2)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.mix_k = nn.Parameter(torch.zeros(dim))
        self.mix_r = nn.Parameter(torch.zeros(dim))
        self.key = nn.Linear(dim, hidden, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; `before` are the tokens before."""
        key = F.relu(self.key(torch.lerp(before, x, self.mix_k.to(x.dtype)))).square()
        return torch.sigmoid(self.receptance(torch.lerp(before, x, self.mix_r.to(x.dtype)))) * self.value(key)

    @torch.no_grad()
    def initialize_(self, place: Place, gain: float, generator: torch.Generator | None) -> None:
        """As the authors' code: nothing is added at first, since the values begin at zero; `gain` is the keys'."""
        dim = self.mix_k.shape[0]
        self.mix_k.copy_(ramp(dim, place.falling))
        self.mix_r.copy_(ramp(dim, place.falling))
        orthogonal_(self.key, gain, generator)
        for linear in (self.receptance, self.value):
            nn.init.zeros_(linear.weight)
