"""RWKV-5's mixing of tokens: a matrix of memory a head, whose rows forget at rates of their own.

Paper: https://arxiv.org/abs/2404.05892 (Eagle), section 4.1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.rwkv.matrix_wkv import matrix_wkv
from core.nn.rwkv.mixing import Place, orthogonal_, ramp, speeds, zigzag

NORM_EPS = 64e-5  # the authors divide by 8 and normalise with 1e-5


class TimeMix5(nn.Module):
    """output(silu(gate) * norm(o)); the norm is of each head at each position."""

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.decay = nn.Parameter(torch.zeros(dim))  # rates are e^decay; one axis, so that training decays them not
        self.bonus = nn.Parameter(torch.zeros(dim))
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, dim, bias=False)
        self.norm = nn.GroupNorm(dim // head_dim, dim, eps=NORM_EPS)
        self.output = nn.Linear(dim, dim, bias=False)
        self.add_mixes(dim)

    def add_mixes(self, dim: int) -> None:
        """Make the parameters of `inputs`."""
        for name in "kvrg":
            self.register_parameter(f"mix_{name}", nn.Parameter(torch.zeros(dim)))

    def inputs(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What k, v, r and the gate are made from [B, T, dim], and the decays' logarithms [B or 1, T, dim]."""
        k, v, r, g = (torch.lerp(before, x, self.get_parameter(f"mix_{name}").to(x.dtype)) for name in "kvrg")
        return k, v, r, g, log_decays(self.decay).expand(1, x.shape[1], -1)

    def forward(self, x: Tensor, before: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix x [B, T, dim], the tokens `before` and the past; also the state [B, heads, head_dim, head_dim]."""
        for_k, for_v, for_r, for_g, log_decay = self.inputs(x, before)
        gate = F.silu(self.gate(for_g))
        dtype = log_decay.dtype
        r, k, v = self.receptance(for_r).to(dtype), self.key(for_k).to(dtype), self.value(for_v).to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            bonus = self.bonus.to(dtype).unflatten(0, (-1, self.head_dim))
            r, k, v, log_decay = (self._heads(part) for part in (r, k, v, log_decay))
            mixed, state = matrix_wkv(r, k, v, log_decay, bonus, state)
            mixed = self._normed(mixed.transpose(1, 2).flatten(2))
        return self.output(gate * mixed.to(gate.dtype)), state

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def _normed(self, x: Tensor) -> Tensor:
        weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
        return F.group_norm(x.flatten(0, 1), self.norm.num_groups, weight, bias, NORM_EPS).view_as(x)

    @torch.no_grad()
    def initialize_(self, place: Place, generator: torch.Generator | None) -> None:
        """As the authors' code: rates from e^-6 to e^-1, outputs zero, small keys and gates."""
        dim = self.decay.shape[0]
        self.decay.copy_(speeds(dim, -6, 5, place))
        along = torch.arange(dim) / max(1, dim - 1)
        self.bonus.copy_(place.rising * (1 - along) + 0.1 * zigzag(dim))
        self.norm.weight.fill_(((1 + place.index) / place.depth) ** 0.7)
        self.initialize_mixes_(place, generator)
        for linear, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0), (self.gate, 0.1)):
            orthogonal_(linear, gain, generator)
        nn.init.zeros_(self.output.weight)

    def initialize_mixes_(self, place: Place, generator: torch.Generator | None) -> None:
        """The parameters of `inputs`."""
        powers = {"k": 1.0, "v": 1.0, "r": 0.5, "g": 0.5}
        for name, power in powers.items():
            mix = ramp(self.decay.shape[0], power * place.falling) + (0.3 * place.rising if name == "v" else 0.0)
            self.get_parameter(f"mix_{name}").copy_(mix)


def log_decays(rates: Tensor) -> Tensor:
    """-e^rates, in float32 or more: products of many decays lose what 16 bits round."""
    return -rates.to(torch.promote_types(rates.dtype, torch.float32)).exp()
