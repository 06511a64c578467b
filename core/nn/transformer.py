"""The reference Transformer: pre-norm blocks whose attention and feed-forward network are chosen by name.

Papers: https://arxiv.org/abs/1706.03762 (Transformer), https://arxiv.org/abs/2002.04745 (norms before the parts). The
models of `core/models` put their embeddings before it and their pooling after it.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from core.nn.attention import ATTENTION
from core.nn.attention.base import Attention
from core.nn.cache import Cache, LayerCache
from core.nn.ffn import FFN
from core.nn.ffn.masked import feed_forward
from core.nn.tokens.global_tokens import NoGlobalTokens
from core.nn.tokens.sizes import sizes_of, with_sizes


class TransformerBlock(nn.Module):
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
        return x + feed_forward(self.ffn, self.norm2(x), mask=mask, attention=self.attention)


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

        self.global_tokens = NoGlobalTokens()
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, make_attention(), FFN[ffn](dim, ffn_dim)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs, bias=head_bias)

    def transform(
        self, x: Tensor, *, mask: Tensor | None = None, cache: Cache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Embedded tokens through all blocks and the last norm: [B, T, dim] -> [B, T, dim]."""
        x, mask = self.global_tokens.enter(x, mask)
        for index, block in enumerate(self.blocks):
            x = block(x, mask=mask, cache=cache[index] if cache is not None else None, positions=positions)
        return with_sizes(self.norm(self.global_tokens.leave(x)), sizes_of(x))

    def make_cache(self, max_length: int) -> Cache:
        """An empty cache for decoding up to `max_length` tokens: of each block its own, else its attention's."""
        makers = [block if hasattr(block, "make_cache") else block.attention for block in self.blocks]
        return [cast(Attention, maker).make_cache(max_length) for maker in makers]


def normal_(weight: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fill with a normal distribution; nothing is done on the meta device."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std, generator=generator)


def initialize_linears_(model: Transformer, generator: torch.Generator | None) -> None:
    """Bidirectional models: Xavier's uniform distribution in the blocks, as ViT's authors do, a small head, biases 0.

    Beside it positions want a standard deviation of 1 / sqrt(dim): with 0.02 a small model learns where a
    token is only after hundreds of steps.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if name == "head":
                normal_(module.weight, 0.02, generator)
            elif not module.weight.is_meta:
                nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
