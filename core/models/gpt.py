"""`builtin:gpt`: a causal language model on the reference Transformer.

Paper: https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf (GPT-2).
Here on bytes, and with rotary positions (https://arxiv.org/abs/2104.09864) if asked.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.models.base import TextSettings
from core.models.tokenizer import ByteTokenizer
from core.nn.cache import Cache
from core.nn.rotary import BASE
from core.nn.transformer import Transformer, normal_
from core.tasks.base import InputFormat, Kind, Task


class Gpt(Transformer):
    """A causal Transformer that maps tokens to the logits of the next token."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        positions: str,
        tied: bool,
        embedding_std: float | None = None,
        **blocks: Any,
    ):
        rotary = BASE if positions == "rotary" else None
        super().__init__(outputs=vocab_size, causal=True, rotary=rotary, head_bias=False, **blocks)
        self.length = length
        self.embedding_std = embedding_std
        self.embedding = nn.Embedding(vocab_size, self.dim)
        self.position_embedding = nn.Embedding(length, self.dim) if positions == "learned" else None
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits [B, T, vocab_size] of the token after each of input_ids [B, T].

        With a cache (`make_cache`) these tokens continue those that it has seen, and are added to it.
        """
        start = cache[0].length if cache is not None else 0
        positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        x = self.embedding(input_ids)  # [B, T, dim]
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        return self.head(self.transform(x, cache=cache, positions=positions))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue input_ids [B, T] by sampling: [B, T + max_new_tokens]; temperature 0 takes the most likely."""
        total = input_ids.shape[1] + max_new_tokens
        if self.position_embedding is not None and total > self.length:
            raise ValueError(f"{total} tokens exceed the context of {self.length}")
        cache = self.make_cache(total)
        tokens = [input_ids]
        for _ in range(max_new_tokens):
            logits = self(tokens[-1], cache=cache)[:, -1]  # [B, vocab_size]
            tokens.append(sample(logits, temperature, top_k, generator))
        return torch.cat(tokens, dim=1)

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Initialize the weights like GPT-2: residual branches are scaled down by the depth.

        The standard deviation is sqrt(2 / (5 dim)) (https://arxiv.org/abs/1910.05895), which is GPT-2's 0.02
        at a width of 1000 and fits narrow models too. Tokens and positions have `embedding_std` where it is given.
        """
        std = (2 / (5 * self.dim)) ** 0.5
        residual = (2 * len(self.blocks)) ** -0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                normal_(module.weight, self.embedding_std or std, generator)
            elif isinstance(module, nn.Linear):
                to_residual = name.endswith((".attention.o", ".ffn.down"))
                normal_(module.weight, std * (residual if to_residual else 1.0), generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class GptSettings(TextSettings):
    """A causal language model over bytes, trained from scratch."""

    kind = Kind.LANGUAGE_MODELLING
    module = Gpt

    kv_heads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="number of key and value heads; same as heads if empty",
        json_schema_extra={"when_empty": "as heads"},
    )
    tied: bool = Field(True, description="share the embedding's weights with the output head")

    def resolve(self, task: Task) -> tuple[dict[str, Any], InputFormat]:
        """The arguments of `Gpt`, and its input format."""
        tokenizer = ByteTokenizer()
        text = self.resolve_text(task, self.kv_heads)
        config = {**text, "vocab_size": tokenizer.vocab_size, "tied": self.tied}
        return config, InputFormat(tokenizer=tokenizer, length=text["length"])


def sample(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """One token [B, 1] from logits [B, vocab_size], among the `top_k` most likely; temperature 0 takes the top one."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
