"""Sparse feed-forward network: of every block of hidden units a controller chooses the one that is computed.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.1); what it leaves open is as in the authors'
code (trax, SparseFF). Training computes all units and costs as much as a dense network; a token that is
generated reads only the chosen units' weights. They lie as [block, unit, dim], those on the way in and those on the way
out, so that a chosen unit is one contiguous row of each. (trax has the second as [unit, block, dim].)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.replacement import Replacement


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise in float32, of uniform draws clipped to [1e-6, 1 - 1e-6]."""
    u = torch.rand(like.shape, device=like.device).clamp(1e-6, 1 - 1e-6)
    return -(-u.log()).log()


def one_hot(choice: Tensor, like: Tensor) -> Tensor:
    """1 at the chosen unit of each block, else 0: choice [...] -> [..., block_size], shaped and typed as `like`."""
    return torch.zeros_like(like).scatter(-1, choice.unsqueeze(-1), 1.0)


class SparseFfn(Replacement):
    """relu((x W1) * mask) W2 + b2, of `hidden` units in blocks of `block_size`, of each of which the mask keeps one.

    The controller is of rank `rank`, without a non-linearity. A training batch has a hard mask with the probability
    `quant_prob`: one-hot, chosen under Gumbel noise times `temperature`, its gradient that of the soft one. Else it
    has the soft mask, without noise. In evaluation the unit with the largest logit is kept.
    """

    def __init__(self, dim: int, hidden: int, *, block_size: int, rank: int, quant_prob: float, temperature: float):
        super().__init__()
        self.dim, self.hidden, self.block_size, self.rank = dim, hidden, block_size, rank
        self.quant_prob, self.temperature = quant_prob, temperature
        self.n_blocks = hidden // block_size
        self.controller_in = nn.Parameter(torch.empty(rank, dim))
        self.controller_out = nn.Parameter(torch.empty(hidden, rank))
        self.controller_bias = nn.Parameter(torch.empty(hidden))
        self.up = nn.Parameter(torch.empty(self.n_blocks, block_size, dim))
        self.down = nn.Parameter(torch.empty(self.n_blocks, block_size, dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self._seen: dict[str, Tensor] = {}  # of the last training batch, for curves

    @torch.no_grad()
    def initialize_(self, generator: torch.Generator | None) -> None:
        """Fresh weights as in the authors' code: Glorot's uniform, biases near zero."""
        for matrix in (self.controller_in, self.controller_out, self.up.flatten(0, 1), self.down.flatten(0, 1)):
            nn.init.xavier_uniform_(matrix, generator=generator)
        for bias in (self.controller_bias, self.bias):
            nn.init.normal_(bias, std=1e-6, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        if self.training:
            return self.masked(x, self.training_mask(self.logits(x)))
        if self._gathers(x.numel() // self.dim):
            return self.gathered(x)
        logits = self.logits(x)
        return self.masked(x, one_hot(logits.argmax(-1), logits))

    def logits(self, x: Tensor) -> Tensor:
        """What the controller gives each unit: [..., dim] -> [..., n_blocks, block_size]."""
        flat = F.linear(F.linear(x, self.controller_in), self.controller_out, self.controller_bias)
        return flat.unflatten(-1, (self.n_blocks, self.block_size))

    def training_mask(self, logits: Tensor) -> Tensor:
        """Hard or soft for the whole batch, by one draw: [..., n_blocks, block_size]."""
        log_soft = logits.log_softmax(-1, dtype=torch.float32)
        soft = log_soft.exp()
        hard = float(torch.rand(())) < self.quant_prob
        noisy = log_soft + self.temperature * gumbel_noise(log_soft) if hard else log_soft  # soft masks have no noise
        choice = noisy.detach().argmax(-1)
        self._see(soft.detach(), choice)
        return one_hot(choice, soft) + soft - soft.detach() if hard else soft

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """All units computed and multiplied with mask [..., n_blocks, block_size]: [..., dim]."""
        hidden = F.linear(x, self.up.flatten(0, 1)) * mask.flatten(-2)  # [..., hidden]
        return F.relu(hidden).to(x.dtype) @ self.down.flatten(0, 1) + self.bias

    def gathered(self, x: Tensor) -> Tensor:
        """Only the chosen units, read for each token by itself: [..., dim] -> [..., dim]."""
        choice = self.logits(x).argmax(-1)  # [..., n_blocks]
        units = (choice + torch.arange(0, self.hidden, self.block_size, device=x.device)).flatten(0, -2)
        chosen = F.embedding(units, self.up.flatten(0, 1))  # [rows, n_blocks, dim]
        hidden = F.relu(chosen @ x.reshape(-1, self.dim, 1)).squeeze(-1)  # [rows, n_blocks]
        y = F.embedding_bag(units, self.down.flatten(0, 1), per_sample_weights=hidden, mode="sum")
        return y.view_as(x) + self.bias

    def _gathers(self, rows: int) -> bool:
        """Whether so many tokens gather their units: to copy more than half the weights is slower than to read all."""
        return 2 * rows <= self.block_size

    def _see(self, soft: Tensor, choice: Tensor) -> None:
        used = torch.zeros_like(soft, dtype=torch.bool).scatter(-1, choice.unsqueeze(-1), True)
        self._seen = {
            "units in use (%)": 100 * used.flatten(0, -3).any(0).float().mean(),
            "largest share in a soft mask (%)": 100 * soft.amax(-1).mean(),
        }

    def observed(self) -> dict[str, float]:
        """Of the last training batch: units that some token chose, and how decided the controller is."""
        return {name: float(value) for name, value in self._seen.items()}

    def inactive_parameters(self) -> int:
        """Weights of the units that one token does not choose."""
        return 2 * self.dim * (self.hidden - self.n_blocks)

    def macs(self, shape: torch.Size) -> int:
        """In evaluation: of the chosen units where they are gathered, of all where many tokens are computed at once."""
        rows = shape.numel() // shape[-1]
        units = self.n_blocks if self._gathers(rows) else self.hidden
        return rows * (self.rank * (self.dim + self.hidden) + 2 * self.dim * units)

    def arguments(self) -> dict[str, Any]:
        names = ("dim", "hidden", "block_size", "rank", "quant_prob", "temperature")
        return {name: getattr(self, name) for name in names}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
