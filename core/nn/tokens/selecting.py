"""Token selection: a small predictor in front of a block says which tokens the rest of the model still sees.

Paper: https://arxiv.org/abs/2106.02034 (DynamicViT, section 3). In training a dropped token is masked, and the choice
is drawn by a hard Gumbel-softmax whose gradient goes straight through; in evaluation the best are gathered.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.tokens.block import ReducingBlock
from core.nn.tokens.sizes import masked_attention, proportional_attention, sizes_of, with_sizes


class KeepPredictor(nn.Module):
    """Log-probabilities that each token is kept or dropped: from itself, and from the mean of the kept ones."""

    def __init__(self, dim: int):
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.decide = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Tokens [B, T, dim], of which kept [B, T] count -> [B, T, 2], keep first."""
        own, others = self.embed(x).chunk(2, dim=-1)
        share = kept / kept.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (share[..., None] * others).sum(dim=1, keepdim=True).expand_as(others)
        return F.log_softmax(self.decide(torch.cat((own, mean), dim=-1)), dim=-1)


class SelectingBlock(ReducingBlock):
    """A block that first drops tokens, or, without `keep`, only honours what earlier ones dropped.

    `keep` is the share of all `tokens` (the `protected` ones in front left out) that it leaves; `ratio_weight` weighs
    the squared distance from it, which trainings add to their loss.
    """

    def __init__(
        self,
        parts: dict[str, str],
        head_dim: int,
        protected: int,
        tokens: int,
        dim: int,
        keep: float | None = None,
        ratio_weight: float = 0.0,
    ):
        super().__init__(parts, head_dim)
        self.protected, self.tokens, self.dim = protected, tokens, dim
        self.keep, self.ratio_weight = keep, ratio_weight
        self.predictor = KeepPredictor(dim) if keep is not None else None
        self.kept: Tensor | None = None  # [B, T] of the last training batch: 1 for a token that is left
        self._kept_share: Tensor | None = None  # [B] of the same, with its gradient, until `aux_losses` takes it

    def arguments(self) -> dict[str, Any]:
        return {
            **super().arguments(),
            "protected": self.protected,
            "tokens": self.tokens,
            "dim": self.dim,
            "keep": self.keep,
            "ratio_weight": self.ratio_weight,
        }

    def aux_losses(self) -> dict[str, Tensor]:
        """Squared distance of the kept share from its target, in the last training batch."""
        if self.keep is None or self._kept_share is None:
            return {}
        distance = ((self._kept_share - self.keep) ** 2).mean()
        self._kept_share = None  # what has a gradient cannot be copied with the model
        return {f"kept tokens, target {self.keep:.2f}": self.ratio_weight * distance}

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """[B, T, dim] -> [B, T, dim] in training, with the mask of kept tokens; fewer tokens in evaluation."""
        kept = sizes_of(x)
        if self.predictor is not None:
            x, kept = self._mask(x, kept) if self.training else (self._gather(x), None)
        self.kept = None if kept is None else kept.detach()
        normed = self.part("norm1")(x)
        q, k, v = (self.heads(name, normed) for name in "qkv")
        mixed = proportional_attention(q, k, v, None) if kept is None else masked_attention(q, k, v, kept)
        return with_sizes(self.feed_forward(x + self.out(mixed)), kept)

    def _mask(self, x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        before = x.new_ones(x.shape[:2]) if kept is None else kept
        patches = before[:, self.protected :]
        scores = self._scores(x, patches)
        drawn = F.gumbel_softmax(scores, hard=True)[..., 0] * patches  # what was dropped stays dropped
        self._kept_share = drawn.mean(dim=1)
        return x, torch.cat((before[:, : self.protected], drawn), dim=1)

    def _gather(self, x: Tensor) -> Tensor:
        """The `keep` best patches, in their order, behind the protected tokens."""
        assert self.keep is not None
        patches = x[:, self.protected :]
        n_kept = min(patches.shape[1], max(1, int(self.keep * self.tokens)))
        scores = self._scores(x, x.new_ones(patches.shape[:2]))[..., 0]
        best = scores.topk(n_kept, dim=1).indices.sort(dim=1).values
        kept = patches.gather(1, best[..., None].expand(-1, -1, x.shape[-1]))
        return torch.cat((x[:, : self.protected], kept), dim=1)

    def _scores(self, x: Tensor, kept: Tensor) -> Tensor:
        assert self.predictor is not None
        scores: Tensor = self.predictor(x[:, self.protected :], kept)
        return scores
