"""RWKV-4's mixing of tokens: a mean over the past in which every channel forgets at its own rate.

Paper: https://arxiv.org/abs/2305.13048, equations 11 to 17.
"""

import math

import torch
from torch import Tensor, nn

from core.nn.rwkv.mixing import Place, orthogonal_, ramp, speeds, zigzag
from core.nn.rwkv.wkv import Wkv


class TimeMix4(nn.Module):
    """output(sigmoid(r) * wkv(k, v))."""

    def __init__(self, dim: int):
        super().__init__()
        self.mix_k = nn.Parameter(torch.zeros(dim))
        self.mix_v = nn.Parameter(torch.zeros(dim))
        self.mix_r = nn.Parameter(torch.zeros(dim))
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.wkv = Wkv(dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, before: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix x [B, T, dim], the tokens `before` and the past; also the state [B, 3, dim] after x."""
        k = self.key(torch.lerp(before, x, self.mix_k.to(x.dtype)))
        v = self.value(torch.lerp(before, x, self.mix_v.to(x.dtype)))
        r = self.receptance(torch.lerp(before, x, self.mix_r.to(x.dtype)))
        mixed, state = self.wkv(k, v, state)
        return self.output(torch.sigmoid(r) * mixed), state

    @torch.no_grad()
    def initialize_(self, place: Place, generator: torch.Generator | None) -> None:
        """As the authors' code: rates from e^-5 to e^3, keys, receptances and outputs zero."""
        dim = self.mix_k.shape[0]
        self.wkv.decay.copy_(speeds(dim, -5, 8, place))
        self.wkv.bonus.copy_(math.log(0.3) + 0.5 * zigzag(dim))
        self.mix_k.copy_(ramp(dim, place.falling))
        self.mix_v.copy_(ramp(dim, place.falling) + 0.3 * place.rising)
        self.mix_r.copy_(ramp(dim, 0.5 * place.falling))
        orthogonal_(self.value, 1.0, generator)
        for linear in (self.key, self.receptance, self.output):
            nn.init.zeros_(linear.weight)
