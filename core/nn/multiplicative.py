"""Multiplicative linear layer: every output sees every input, at a fraction of a dense layer's weights.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.2). Outputs are cut into modules; the input is
gated by a vector for each module and multiplied with one matrix that all modules share. Any permutation of the
input can be represented exactly. Weights are saved, multiply-accumulates are not: it is fast where reading weights is
what takes the time, which is one token at a time. Here outputs need not be a multiple of the modules: what the last
module has too much is left out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.replacement import Replacement


class MultiplicativeLinear(Replacement):
    """y[s * M + m] = sum_i x[i] * gates[s, i] * projection[m, i] + bias, of M = ceil(out_features / n_modules)."""

    def __init__(self, in_features: int, out_features: int, n_modules: int, *, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features, self.n_modules = in_features, out_features, n_modules
        self.gates = nn.Parameter(torch.empty(n_modules, in_features))
        self.projection = nn.Parameter(torch.empty(-(-out_features // n_modules), in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator | None) -> None:
        """Fresh weights as in the authors' code."""
        nn.init.normal_(self.gates, std=0.5, generator=generator)
        nn.init.xavier_uniform_(self.projection, generator=generator)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=1e-6, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if x.numel() // self.in_features < len(self.projection):  # gating the inputs is less work than the weights
            gated = (x.unsqueeze(-2) * self.gates).flatten(0, -2)  # [rows * n_modules, in_features]
            y = F.linear(self.projection, gated).t()  # the larger matrix first is the faster order in bfloat16
            y = y.reshape(*x.shape[:-1], -1)[..., : self.out_features]
            return y if self.bias is None else y + self.bias
        return F.linear(x, self.weight(), self.bias)

    def weight(self) -> Tensor:
        """The dense layer's weight [out_features, in_features] that this one stands for."""
        return (self.gates[:, None] * self.projection).flatten(0, 1)[: self.out_features]

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "n_modules": self.n_modules,
            "bias": self.bias is not None,
        }

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
