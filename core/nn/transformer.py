"""The reference Transformer: pre-norm blocks whose attention and feed-forward network are chosen by name.

The models of `core/models` put their embeddings before it and their pooling after it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.attention import ATTENTION
from core.nn.cache import Cache, LayerCache
from core.nn.ffn import FFN


class Block(nn.Module):
    """x + attention(norm1(x)), then x + ffn(norm2(x))."""

    def __init__(self, dim: int, attention: nn.Module, ffn: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = ffn

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; the keywords are the attention's."""
        x = x + self.attention(self.norm1(x), mask=mask, cache=cache, positions=positions)
        return x + self.ffn(self.norm2(x))


class Transformer(nn.Module):
    """`depth` blocks, a last norm and a linear head; embeddings and pooling are its subclasses'."""

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        kv_heads: int,
        attention: str,
        attention_settings: dict[str, Any],
        ffn: str,
        ffn_dim: int,
        outputs: int,
        causal: bool = False,
        rotary: float | None = None,
        head_bias: bool = True,
    ):
        super().__init__()
        self.dim = dim

        def make_attention() -> nn.Module:
            settings = {"kv_heads": kv_heads, "causal": causal, "rotary": rotary, **attention_settings}
            return ATTENTION[attention](dim, heads, **settings)

        self.blocks = nn.ModuleList(Block(dim, make_attention(), FFN[ffn](dim, ffn_dim)) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs, bias=head_bias)

    def transform(
        self, x: Tensor, *, mask: Tensor | None = None, cache: Cache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Embedded tokens through all blocks and the last norm: [B, T, dim] -> [B, T, dim]."""
        for index, block in enumerate(self.blocks):
            x = block(x, mask=mask, cache=cache[index] if cache is not None else None, positions=positions)
        return self.norm(x)

    def make_cache(self, max_length: int) -> Cache:
        """An empty cache, one entry a block, for decoding up to `max_length` tokens."""
        return [block.attention.make_cache(max_length) for block in self.blocks]


def truncated_normal_(weight: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fill with a normal distribution cut at two standard deviations; nothing is done on the meta device."""
    if not weight.is_meta:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)


def initialize_blocks_(model: Transformer, generator: torch.Generator | None, *, scale_by_depth: bool = False) -> None:
    """Linears of the blocks and the head: truncated normal of 0.02, biases 0.

    `scale_by_depth` divides what is added to the residual stream by sqrt(2 * depth), as GPT-2 does.
    """
    residual = (2 * len(model.blocks)) ** -0.5 if scale_by_depth else 1.0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            to_residual = name.endswith((".attention.o", ".ffn.down"))
            truncated_normal_(module.weight, 0.02 * (residual if to_residual else 1.0), generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
