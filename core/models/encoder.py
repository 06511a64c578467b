"""`builtin:encoder`: a text classifier on the reference Transformer.

Paper: https://arxiv.org/abs/1810.04805 (BERT). Here pre-norm, on bytes, and trained for its classes from scratch.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.base import TextSettings
from core.models.tokenizer import ByteTokenizer
from core.nn.rotary import BASE
from core.nn.transformer import Transformer, initialize_linears_, normal_
from core.tasks.base import InputFormat, Kind, Task


class Encoder(Transformer):
    """A bidirectional Transformer that maps tokens to the logits of the text's class."""

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        pooling: str,
        n_classes: int,
        positions: str = "learned",
        embedding_std: float | None = None,
        **blocks: Any,
    ):
        super().__init__(outputs=n_classes, rotary=BASE if positions == "rotary" else None, **blocks)
        self.length = length
        self.embedding_std = embedding_std or self.dim**-0.5
        self.embedding = nn.Embedding(vocab_size, self.dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, self.dim)) if pooling == "cls" else None
        self.position_embedding = nn.Embedding(length, self.dim) if positions == "learned" else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [B, n_classes] of input_ids [B, T]; attention_mask [B, T] is 0 at padding."""
        x = self.embedding(input_ids)  # [B, T, dim]
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: x.shape[1]]
        mask = attention_mask.bool() if attention_mask is not None else None
        if self.cls is not None:
            x = torch.cat((self.cls.expand(len(x), -1, -1), x), dim=1)
            mask = F.pad(mask, (1, 0), value=True) if mask is not None else None
        x = self.transform(x, mask=mask)
        return self.head(x[:, 0] if self.cls is not None else masked_mean(x, mask))

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Initialize the weights."""
        initialize_linears_(self, generator)
        normal_(self.embedding.weight, self.embedding_std, generator)
        if self.position_embedding is not None:
            normal_(self.position_embedding.weight, self.embedding_std, generator)
        if self.cls is not None:
            normal_(self.cls, self.embedding_std, generator)


class EncoderSettings(TextSettings):
    """A bidirectional text classifier, trained from scratch."""

    kind = Kind.TEXT_CLASSIFICATION
    module = Encoder

    pooling: Literal["mean", "cls"] = Field("mean", description="what the classification head reads")

    def resolve(self, task: Task) -> tuple[dict[str, Any], InputFormat]:
        """The arguments of `Encoder`, and its input format."""
        tokenizer = ByteTokenizer()
        text = self.resolve_text(task)
        config = {
            **text,
            "vocab_size": tokenizer.vocab_size,
            "pooling": self.check_pooling(self.pooling),
            "n_classes": task.n_classes,
        }
        return config, InputFormat(tokenizer=tokenizer, length=text["length"])


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens of x [B, T, dim] whose mask [B, T] is True."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask.to(x.dtype)[:, :, None]  # [B, T, 1]
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
