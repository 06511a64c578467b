"""Token merging: between attention and feed-forward network the most similar tokens become one.

Paper: https://arxiv.org/abs/2210.09461 (ToMe, section 3). Every second token is matched with its most similar one of
the others, by the cosine of their mean keys, and the best pairs are averaged, weighted by what they stand for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.tokens.block import ReducingBlock
from core.nn.tokens.sizes import proportional_attention, sizes_of, with_sizes


def match(metric: Tensor, merged: int, protected: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which even tokens stay [B, n_stay], which go [B, n_merged], and into which odd token each of them goes.

    `metric` is [B, T, d]; places count among the even, and among the odd tokens. The first `protected` tokens (0..2:
    the class token, the distillation token) are never merged. At most half of the others go.
    """
    metric = F.normalize(metric.float(), dim=-1)
    scores = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)  # [B, n_even, n_odd]
    if protected > 0:
        scores[:, 0] = -torch.inf
    if protected > 1:
        scores[:, :, 0] = -torch.inf
    best = scores.max(dim=-1)
    order = best.values.argsort(dim=-1, descending=True, stable=True)
    n_merged = min(merged, (metric.shape[1] - protected) // 2)
    going = order[:, :n_merged]
    return order[:, n_merged:].sort(dim=-1).values, going, best.indices.gather(1, going)


def merge(x: Tensor, sizes: Tensor, matched: tuple[Tensor, Tensor, Tensor], protected: int) -> tuple[Tensor, Tensor]:
    """The tokens x [B, T, dim] with matched ones averaged by size, and their new sizes: both shorter along T.

    What a token takes up is added to its size, float32 [B, T]. The protected tokens stay in front.
    """
    staying, going, target = matched
    weighted = torch.cat((x * sizes[..., None], sizes[..., None]), dim=-1)  # float32; one scatter for both
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    width = weighted.shape[-1]
    odd = odd.scatter_add(1, _wide(target, width), even.gather(1, _wide(going, width)))
    even = even.gather(1, _wide(staying, width))
    if protected > 1:
        weighted = torch.cat((even[:, :1], odd[:, :1], even[:, 1:], odd[:, 1:]), dim=1)
    else:
        weighted = torch.cat((even, odd), dim=1)
    sizes = weighted[..., -1]
    return (weighted[..., :-1] / sizes[..., None]).to(x.dtype), sizes


def _wide(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


class MergingBlock(ReducingBlock):
    """A block that merges `merged` pairs of its tokens, as far as there are as many."""

    no_onnx = "token merging needs a stable sort, which ONNX does not have"

    def __init__(self, parts: dict[str, str], head_dim: int, merged: int, protected: int):
        super().__init__(parts, head_dim)
        self.merged = merged
        self.protected = protected

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "merged": self.merged, "protected": self.protected}

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """[B, T, dim] -> [B, T - merged, dim], with their sizes."""
        sizes = sizes_of(x)
        normed = self.part("norm1")(x)
        k = self.heads("k", normed)
        x = x + self.out(proportional_attention(self.heads("q", normed), k, self.heads("v", normed), sizes))
        if sizes is None:
            sizes = torch.ones(x.shape[:2], device=x.device)
        x, sizes = merge(x, sizes, match(k.mean(dim=1), self.merged, self.protected), self.protected)
        return with_sizes(self.feed_forward(x), sizes)
