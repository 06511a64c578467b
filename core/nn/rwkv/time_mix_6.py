"""RWKV-6's mixing of tokens: how far tokens are mixed with the one before, and what is forgotten, depend on the tokens.

Paper: https://arxiv.org/abs/2404.05892 (Finch), section 4.2. The ranks are the authors' 32 and 64, and at most dim / 4.
"""

import torch
from torch import Tensor, nn

from core.nn.fresh import uniform_
from core.nn.rwkv.mixing import Place, ramp
from core.nn.rwkv.time_mix_5 import TimeMix5, log_decays

NAMES = "wkvrg"
MIX_RANK, DECAY_RANK = 32, 64


class TimeMix6(TimeMix5):
    """RWKV-5's recurrence with decays of each token's own."""

    def add_mixes(self, dim: int) -> None:
        """How far each input leans on the token before: vectors, and what a low-rank network adds to them."""
        rank = max(1, min(MIX_RANK, dim // 4))
        for name in ("x", *NAMES):
            self.register_parameter(f"mix_{name}", nn.Parameter(torch.zeros(dim)))
        self.mix_down = nn.Linear(dim, len(NAMES) * rank, bias=False)
        self.mix_up = nn.ModuleList(nn.Linear(rank, dim, bias=False) for _ in NAMES)
        decay_rank = max(1, min(DECAY_RANK, dim // 4))
        self.decay_down = nn.Linear(dim, decay_rank, bias=False)
        self.decay_up = nn.Linear(decay_rank, dim, bias=False)

    def inputs(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `TimeMix5.inputs`; the decays' logarithms are [B, T, dim]."""
        step = before - x
        inner = torch.tanh(self.mix_down(x + step * self.get_parameter("mix_x"))).chunk(len(NAMES), dim=-1)
        w, k, v, r, g = (
            x + step * (self.get_parameter(f"mix_{name}") + up(part))
            for name, up, part in zip(NAMES, self.mix_up, inner, strict=True)
        )
        added = self.decay_up(torch.tanh(self.decay_down(w)))
        return k, v, r, g, log_decays(self.decay + added)

    def initialize_mixes_(self, place: Place, generator: torch.Generator | None) -> None:
        """As the authors' code; here a mix is the share of the token before, in RWKV-5 that of the token itself."""
        dim = self.decay.shape[0]
        powers = {"x": 1.0, "w": 1.0, "k": 1.0, "v": 1.0, "r": 0.5, "g": 0.5}
        for name, power in powers.items():
            mix = ramp(dim, power * place.falling) + (0.3 * place.rising if name == "v" else 0.0)
            self.get_parameter(f"mix_{name}").copy_(1 - mix)
        for down in (self.mix_down, self.decay_down):
            nn.init.zeros_(down.weight)
        for up in (*self.mix_up, self.decay_up):
            uniform_(up.weight, 0.01, generator)
